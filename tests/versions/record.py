"""Adapters as another version of PEFT saves them, and what that version makes of the checkpoint when it merges them.

    python -m tests.versions.record CHECKPOINT OUT

runs where that version is installed (run.py sets it up), with whatever transformers it goes with: the model is made
without `per_layer_config`, which older ones do not know. Each case is a folder: what `save_pretrained` wrote, and
change.safetensors, the merged model's weights minus the checkpoint's own where they differ. What a version does not
have is left out. tests/versions/adapters holds those of PEFT 0.17.0, for test_older_adapters.py.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from tests.versions.tiny import NARROW, SIZES, computed

PROJECTIONS = ["q_proj", "down_proj"]
_R = {"r": 2}
#: name → peft_type and the config's values; all others are that version's defaults
CASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "lora": ("LORA", {"r": 2, "lora_alpha": 3}),
    "rslora": ("LORA", {"r": 2, "use_rslora": True, "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"down_proj": 5}}),
    "dora": ("LORA", {"r": 2, "use_dora": True}),
    "pissa": ("LORA", {"r": 2, "init_lora_weights": "pissa"}),
    "olora": ("LORA", {"r": 2, "init_lora_weights": "olora"}),
    "lora-bias": ("LORA", {"r": 2, "lora_bias": True, "target_modules": ["o_proj"]}),
    "lora-only-bias": ("LORA", {"r": 2, "bias": "lora_only", "target_modules": ["o_proj"]}),
    "modules-to-save": ("LORA", {"r": 2, "modules_to_save": ["lm_head"]}),
    "tokens": ("LORA", {"r": 2, "trainable_token_indices": [3, 7]}),
    "parameters": ("LORA", {"r": 2, "target_modules": [], "target_parameters": ["mlp.down_proj.weight"]}),
    "adalora": ("ADALORA", {"init_r": 3, "total_step": 10}),
    "loha": ("LOHA", _R),
    "lokr": ("LOKR", _R),
    "ia3": ("IA3", {"target_modules": ["q_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    "oft": ("OFT", {"r": 0, "oft_block_size": 2}),
    "oft-constrained": ("OFT", {"r": 0, "oft_block_size": 2, "coft": True}),
    "boft": ("BOFT", {"boft_block_size": 2}),
    "vera": ("VERA", _R),
    "vera-unsaved": ("VERA", {"r": 2, "save_projection": False}),
    "randlora": ("RANDLORA", {"r": 3}),
    "vblora": ("VBLORA", {"r": 2, "vector_length": 2, "num_vectors": 8, "topk": 2}),
    "fourierft": ("FOURIERFT", {"n_frequency": 10}),
    "c3a": ("C3A", {"block_size": 2}),
    "hra": ("HRA", _R),
    "shira": ("SHIRA", _R),
    "bone": ("BONE", _R),
    "bone-bat": ("BONE", {"r": 2, "init_weights": "bat"}),
    "miss": ("MISS", _R),
    "ln-tuning": ("LN_TUNING", {"target_modules": ["input_layernorm"]}),
    "trainable-tokens": ("TRAINABLE_TOKENS", {"token_indices": [3, 7]}),
    "road": ("ROAD", {"group_size": 2}),
    "delora": ("DELORA", _R),
    "osf": ("OSF", {}),
    "waveft": ("WAVEFT", {"n_frequency": 10}),
    "gralora": ("GRALORA", {"gralora_k": 2, "r": 4}),
    "psoft": ("PSOFT", _R),
    "pvera": ("PVERA", _R),
    "tinylora": ("TINYLORA", {"r": 2, "u": 3}),
    "adamss": ("ADAMSS", {"r": 4, "num_subspaces": 2}),
    "peanut": ("PEANUT", _R),
}
#: of LayerNorm and tokens alone: they name their own
_OWN_TARGETS = ("TRAINABLE_TOKENS",)


def record(checkpoint: Path, out: Path) -> dict[str, str]:
    """What could not be recorded, and why."""
    left_out = {}
    pruned(checkpoint)
    for case, (kind, values) in CASES.items():
        folder = out / case
        try:
            _record(pruned(checkpoint), folder, kind, dict(values))
        except Exception as error:  # noqa: BLE001 - whatever a version says of what it does not have
            shutil.rmtree(folder, ignore_errors=True)
            left_out[case] = f"{type(error).__name__}: {str(error)[:160]}"
    return left_out


def _record(model: LlamaForCausalLM, folder: Path, kind: str, values: dict[str, Any]) -> None:
    config_class = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    if kind not in _OWN_TARGETS:
        values = {"target_modules": PROJECTIONS, **values}
    torch.manual_seed(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = peft.get_peft_model(model, config_class(task_type="CAUSAL_LM", **values)).eval()
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and "base_layer" not in name:
            parameter.data += computed(name, tuple(parameter.shape), 0.1)
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    _without_places(folder)
    after = adapted.merge_and_unload().state_dict()
    changes = {name: after[name] - tensor for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    save_file({name: change.contiguous() for name, change in changes.items()}, folder / "change.safetensors")


def pruned(checkpoint: Path) -> LlamaForCausalLM:
    config = LlamaConfig(**SIZES)
    model = LlamaForCausalLM(config)
    narrow = copy.deepcopy(config)
    for key, value in NARROW.items():
        setattr(narrow, key, value)
    model.model.layers[1] = LlamaDecoderLayer(narrow, 1)
    model.load_state_dict(load_file(checkpoint / "model.safetensors"))
    return model


def _without_places(folder: Path) -> None:
    path = folder / "adapter_config.json"
    config = json.loads(path.read_bytes())
    path.write_text(json.dumps(config | {"base_model_name_or_path": "checkpoint"}, indent=1, sort_keys=True) + "\n")


def main() -> None:
    checkpoint, out = map(Path, sys.argv[1:])
    left_out = record(checkpoint, out)
    print(json.dumps({"peft": peft.__version__, "left_out": left_out}, indent=1))


if __name__ == "__main__":
    main()
