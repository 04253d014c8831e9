"""A base model and its checkpoint whose weights any version of anything makes the same: computed, not drawn.

Two decoder layers of a small Llama, of which the second lost a KV head with its query heads and most of its neurons.
Needs torch alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SIZES = {
    "vocab_size": 32,
    "hidden_size": 24,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "attention_bias": True,
}
#: of the second layer
NARROW = {"num_key_value_heads": 2, "num_attention_heads": 4, "intermediate_size": 6}
KEPT_KV_HEADS, KEPT_NEURONS = (0, 2), (1, 3, 4, 7, 9, 10)


def computed(name: str, shape: tuple[int, ...], size: float = 0.4) -> Tensor:
    """A weight of this name and shape, fp32."""
    seed = sum(ord(character) * (position + 1) for position, character in enumerate(name))
    numbers = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return (torch.sin(numbers * 12.9898 + seed * 0.7071) * size).float().reshape(shape)
