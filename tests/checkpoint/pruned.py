"""A base model and its pruned copy, cut by hand at kept indices: the oracle for loader and recovery."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from publisher.checkpoint.manifest import BaseModelRecord, Counts, Manifest, Sizes, Widths, record
from publisher.checkpoint.masks import Masks, save_masks

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

#: Layers 1 and 2 of 4 are pruned, to different widths; layer 2 keeps all its heads.
MASKS = Masks(
    head_dim=8,
    group_size=2,
    kv_heads=3,
    neurons=20,
    kept_kv_heads={1: (0, 2)},
    kept_neurons={1: (1, 4, 5, 6, 13, 19), 2: (0, 2, 3, 7, 8, 9, 11, 18)},
)
SIZES = {
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}


@dataclass
class Pair:
    base: LlamaForCausalLM
    pruned: LlamaForCausalLM


def make_pair(**config: object) -> Pair:
    """Both in float64, with random weights."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**(SIZES | config))).double().eval()
    for parameter in base.parameters():  # biases and norms start as constants
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    overrides = {layer: _overrides(layer) for layer in MASKS.kept_neurons}
    pruned = LlamaForCausalLM(LlamaConfig(**(SIZES | config), per_layer_config=overrides)).double().eval()
    pruned.load_state_dict({name: _cut(name, tensor) for name, tensor in base.state_dict().items()})
    return Pair(base, pruned)


def zero_removed(model: LlamaForCausalLM) -> None:
    """Removed heads and neurons of the base model give nothing: their output weights become zero."""
    for index, layer in enumerate(model.model.layers):
        for projection, owner in (("o_proj", layer.self_attn), ("down_proj", layer.mlp)):
            kept = MASKS.columns(index, projection)
            if kept is not None:
                weight = getattr(owner, projection).weight
                mask = torch.zeros(weight.shape[1], dtype=weight.dtype).index_fill_(0, kept.indices, 1)
                weight.data *= mask


def lora(model: LlamaForCausalLM, **config: object) -> PeftModel:
    """A LoRA whose A and B are both random: an update in every entry."""
    settings = {"r": 3, "lora_alpha": 5, "target_modules": PROJECTIONS, "init_lora_weights": False} | config
    torch.manual_seed(1)
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings), autocast_adapter_dtype=False).eval()


def save_checkpoint(folder: Path, model: LlamaForCausalLM, base: str = "org/base", commit: str = "c" * 40) -> Path:
    """Config, masks, weights and a manifest; what recovery and loading read."""
    model.save_pretrained(folder)
    save_masks(MASKS, folder / "pruning_masks.safetensors")
    manifest(folder, base, commit).write(folder)
    return folder


def manifest(folder: Path, base: str, commit: str) -> Manifest:
    return Manifest(
        base=BaseModelRecord(repo_id=base, revision=commit, endpoint="https://huggingface.co"),
        recipe={"pruning": {"ratio": 0.5}, "quantization": {"scheme": "none"}},
        recipe_digest="0" * 64,
        parameters=Counts(base=100, pruned=50),
        bytes=Sizes(base=400, checkpoint=200),
        base_widths=Widths(query_heads=6, kv_heads=3, neurons=20),
        widths=[Widths(query_heads=6, kv_heads=3, neurons=20)] * 4,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        files={path.name: record(path) for path in sorted(folder.iterdir()) if path.name != "loram.json"},
    )


def _overrides(layer: int) -> dict[str, int]:
    kv_heads = len(MASKS.kept_kv_heads.get(layer, range(MASKS.kv_heads)))
    heads = {"num_key_value_heads": kv_heads, "num_attention_heads": kv_heads * MASKS.group_size}
    return {**heads, "intermediate_size": len(MASKS.kept_neurons[layer])}


def _cut(name: str, tensor: torch.Tensor) -> torch.Tensor:
    parts = name.split(".")
    if not name.startswith("model.layers.") or not parts[-2].endswith("_proj"):
        return tensor
    layer, projection = int(parts[2]), parts[-2]
    rows, columns = MASKS.rows(layer, projection), MASKS.columns(layer, projection)
    if rows is not None:
        tensor = tensor[rows.indices]
    if columns is not None and tensor.ndim == 2:
        tensor = tensor[:, columns.indices]
    return tensor
