"""Putting entries back at the kept indices, with zeros between (arXiv 2502.13533, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from publisher.checkpoint.pruning_masks import KeptIndices


def put_back(tensor: Tensor, kept: KeptIndices, axis: int, fill: float = 0) -> Tensor:
    """`fill` of the full size, with `tensor`'s entries of `axis` at the kept indices, bit by bit."""
    shape = list(tensor.shape)
    shape[axis] = kept.full
    bits = tensor.view(torch.uint8) if tensor.itemsize == 1 else tensor  # torch cannot index floats of 8 bits
    empty = torch.full(shape, fill, dtype=tensor.dtype, device=tensor.device).view(bits.dtype)
    whole = empty.index_copy_(axis, kept.indices.to(tensor.device), bits)
    return whole.view(tensor.dtype)
