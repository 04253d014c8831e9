"""GPTQ onto NF4 with an inverse per column, from the paper's equations 2 and 3."""

from __future__ import annotations

import torch
from torch import Tensor

from worker.quantization.packing import round_trip


def gptq(weight: Tensor, hessian: Tensor) -> Tensor:
    """What to round to the nearest instead of `weight` `(out, in)`, float64, by Hessian `(in, in)`."""
    original, now = weight.bfloat16().double(), weight.double().clone()
    blocks = torch.nn.functional.pad(original.flatten(), (0, -original.numel() % 64)).view(-1, 64)
    limit = blocks.abs().amax(1, keepdim=True).expand(-1, 64).flatten()[: original.numel()].view_as(original)
    largest = torch.zeros_like(blocks).scatter(1, blocks.abs().argmax(1, keepdim=True), 1.0).flatten()
    is_largest = largest[: original.numel()].view_as(original).bool()
    stored = original.clone()
    for column in range(weight.shape[1]):
        inverse = torch.linalg.inv(hessian[column:, column:])
        values = now[:, column].clamp(-limit[:, column], limit[:, column])
        stored[:, column] = torch.where(is_largest[:, column], original[:, column], values).bfloat16().double()
        # with all other weights as they were, scales are what they were
        alone = original.clone()
        alone[:, column] = stored[:, column]
        error = (now[:, column] - round_trip(alone)[:, column].double()) / inverse[0, 0]
        now[:, column:] -= error[:, None] * inverse[0]
    return stored
