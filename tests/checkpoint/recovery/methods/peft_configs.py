"""One adapter of every method of PEFT that trains on a tiny pruned model: what the oracles walk over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers import PreTrainedModel

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
#: FRoD needs modules of one input width in all layers
_EVEN = ["q_proj", "k_proj", "up_proj"]
_R = {"r": 2}

#: AdapterMethod.key, and what is special → the config's values beside target_modules; blocks of 2 divide every width of
#: the tiny models
UPDATES: Mapping[str, Mapping[str, Any]] = {
    "LORA": {"r": 2, "init_lora_weights": False},
    "LORA + mica": {"r": 2, "init_lora_weights": "mica"},
    "LORA velora_config": {"r": 2, "velora_config": {"num_groups": 2}},
    "LORA use_dora": {"r": 2, "use_dora": True},
    "LORA use_dora + rslora": {"r": 2, "use_dora": True, "use_rslora": True, "rank_pattern": {"q_proj": 3}},
    "LORA kasa_config": {"r": 2, "kasa_config": {"beta": 1e-4}},
    "LORA use_bdlora": {
        "r": 2,
        "use_bdlora": {"target_modules_bd_a": ["o_proj", "down_proj"], "target_modules_bd_b": ["q_proj"], "nblocks": 2,
                       "match_strict": False},
    },
    "LORA monteclora_config": {"r": 2, "monteclora_config": {"num_samples": 2}},
    "LORA init_lora_weights=pissa, olora": {"r": 2, "init_lora_weights": "pissa"},
    "LORA init_lora_weights=pissa, olora + olora": {"r": 2, "init_lora_weights": "olora"},
    "ADALORA": {"init_r": 3, "total_step": 10},
    "LOHA": _R,
    "IA3": {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "LOKR": _R,
    "LOKR + both": {"r": 2, "decompose_both": True, "decompose_factor": 2},
    "VERA": _R,
    "VERA + unsaved": {"r": 2, "save_projection": False},
    "PVERA": _R,
    "RANDLORA": {"r": 3},
    "C3A": {"block_size": 2},
    "GRALORA": {"gralora_k": 2, "r": 4},
    "FOURIERFT": {"n_frequency": 10},
    "WAVEFT": {"n_frequency": 10},
    "SHIRA": _R,
    "VBLORA": {"r": 2, "vector_length": 2, "num_vectors": 8, "topk": 2},
    "VBLORA + few": {"r": 2, "vector_length": 2, "num_vectors": 8, "topk": 2, "save_only_topk_weights": True},
    "RANDLORA + unsaved": {"r": 3, "save_projection": False},
    "UNILORA + saved": {"r": 2, "theta_d_length": 32, "save_indices": True},
    "TINYLORA + unsaved": {"r": 2, "u": 3, "save_projection": False},
    "SUPERTUNING + lora": {"sparsity": 0.9, "r": 2},
    "MISS + mini": {"r": 2, "init_weights": "mini", "mini_r": 2},
    "OFT + constrained": {"r": 0, "oft_block_size": 2, "coft": True, "eps": 0.1},
    "TINYLORA": {"r": 2, "u": 3, "weight_tying": 0.5},
    "UNILORA": {"r": 2, "theta_d_length": 32},
    "DELORA": _R,
    "ADAMSS": {"r": 4, "num_subspaces": 2},
    "PEANUT": _R,
    "FROD": {"target_modules": _EVEN, "sparse_rate": 0.1},
    "SUPERTUNING": {"sparsity": 0.9},
    "MISS": _R,
    "MISS init_weights=bat": {"r": 2, "init_weights": "bat"},
    "OFT": {"r": 0, "oft_block_size": 2},
    "BOFT": {"boft_block_size": 2},
    "HRA": _R,
    "HIRA": _R,
    "PSOFT": _R,
    "OSF": {},
    "ROAD": {"group_size": 2},
    "GLORA": _R,
    "DEFT": _R,
}  # fmt: skip


def method_key(case: str) -> str:
    return case.split(" + ", maxsplit=1)[0]


def tuned(model: PreTrainedModel, case: str, amount: float = 0.05, **changed: Any) -> PeftModel:
    """`model` with the adapter of `case`, every trained number of which is moved."""
    peft_type = case.split(" ", maxsplit=1)[0]
    values = {"task_type": "CAUSAL_LM", "target_modules": PROJECTIONS} | UPDATES[case] | changed
    torch.manual_seed(1)
    adapted: PeftModel = get_peft_model(model, PEFT_TYPE_TO_CONFIG_MAPPING[peft_type](**values)).eval()
    torch.manual_seed(2)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and "base_layer" not in name:
            parameter.data += torch.randn_like(parameter) * amount
    return adapted
