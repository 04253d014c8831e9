"""APOLLO: gradients scaled per channel, as Adam on a random projection of them would.

Zhu et al.: "APOLLO: SGD-like Memory, AdamW-level Performance", arXiv 2412.05270, Algorithm 1, with its norm-growth
limiter. The projection is made anew from its seed whenever it is needed, so it takes no memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from worker.alignment.optimizers.subspace import MatrixOptimizer, adam, is_wide, project

#: T: steps between projections, as the paper has it
_GAP = 200
#: γ: how much larger than the last one an update may be
_GROWTH = 1.01


class Apollo(MatrixOptimizer):
    """W ← W - lr · G diag(s), s_j = ‖Adam(P G)_j‖ / ‖(P G)_j‖ for each channel j of the larger side."""

    def __init__(self, params: Iterable[Tensor], *, gap: int = _GAP, **common: Any) -> None:
        super().__init__(params, gap=gap, **common)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if state.get("step", 0) % group["gap"] == 0:
            state["seed"] = int(torch.randint(2**62, ()))
        state["step"] = state.get("step", 0) + 1
        projected = project(gradient, random_projection(gradient, group["rank"], state["seed"]))
        direction = adam(state, "projected", projected, group)
        axis = 0 if is_wide(gradient) else 1
        scaled = gradient * (_norms(direction, axis) / _norms(projected, axis))
        weight.sub_(_limited(scaled, state).mul_(group["lr"]))


def random_projection(gradient: Tensor, rank: int, seed: int) -> Tensor:
    """(smaller side, rank) of N(0, 1 / rank)."""
    smaller = min(gradient.shape)
    rank = min(rank, smaller)
    generator = torch.Generator(gradient.device).manual_seed(seed)
    drawn: Tensor = torch.randn(smaller, rank, generator=generator, device=gradient.device, dtype=gradient.dtype)
    return drawn.div_(rank**0.5)


def _norms(matrix: Tensor, axis: int) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(matrix, dim=axis, keepdim=True)
    return norms.clamp_min(torch.finfo(norms.dtype).tiny)


def _limited(scaled: Tensor, state: dict[str, Any]) -> Tensor:
    """At most `_GROWTH` times as large as the last update."""
    norm: Tensor = torch.linalg.vector_norm(scaled)
    limit = _GROWTH * state.get("norm", norm)
    # an update of zero says nothing about the next one's size
    limited = torch.where((norm > limit) & (limit > 0), limit, norm)
    state["norm"] = limited
    return scaled * (limited / norm.clamp_min(torch.finfo(norm.dtype).tiny))
