"""Tiny models of several families with random weights, saved as their own save_pretrained does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MixtralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3MoeConfig,
)

_SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
_EXPERTS = {"num_experts_per_tok": 2, "num_hidden_layers": 3}

FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_SIZES, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**_SIZES),
    "phi3": lambda: Phi3Config(**_SIZES),
    "gemma2": lambda: Gemma2Config(**_SIZES, query_pre_attn_scalar=8, sliding_window=5),
    "gemma3": lambda: Gemma3TextConfig(**_SIZES, query_pre_attn_scalar=8, sliding_window=5, sliding_window_pattern=2),
    "mixtral": lambda: MixtralConfig(**(_SIZES | _EXPERTS), num_local_experts=4),
    "qwen3_moe": lambda: Qwen3MoeConfig(
        **(_SIZES | _EXPERTS), num_experts=6, moe_intermediate_size=24, mlp_only_layers=[1], norm_topk_prob=True
    ),
}


def save_tiny(
    family: str, folder: Path, *, dtype: torch.dtype = torch.float32, max_shard_size: str = "5GB", seed: int = 0
) -> Path:
    """Every parameter is random, biases and norms included (those are near 1 or, in Gemma, near 0)."""
    model = AutoModelForCausalLM.from_config(FAMILIES[family]())
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * 0.2
        parameter.data = noise + 1 if "norm" in name and not family.startswith("gemma") else noise
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    return folder
