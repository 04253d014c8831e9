"""Lotus: Adam in a subspace that is found by a randomized SVD and left when the gradient stops moving in it.

Miao, Bao, Zhang: "Lotus: Efficient LLM Training by Randomized Low-Rank Gradient Projection with Adaptive Subspace
Switching", arXiv 2602.01233, Algorithm 1; projecting, Adam and the scale are GaLore's, on whose code it builds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from worker.alignment.optimizers.subspace import MatrixOptimizer, adam, is_wide, project, project_back, randomized_basis

#: η of the paper's fine-tuning (Table 2); 25 to 100 are recommended
_VERIFYING_GAP = 50
#: γ of the same; 0.005 to 0.02 are recommended
_THRESHOLD = 0.01


class Lotus(MatrixOptimizer):
    """W ← W - lr · scale · P · Adam(Pᵀ G).

    Every `verifying_gap` projections the displacement of the unit gradient since the subspace's first one, divided by
    their number, is compared with `threshold`; if it is below, the next gradient gives a new subspace.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        scale: float = 0.25,
        verifying_gap: int = _VERIFYING_GAP,
        threshold: float = _THRESHOLD,
        **common: Any,
    ) -> None:
        super().__init__(params, scale=scale, verifying_gap=verifying_gap, threshold=threshold, **common)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        state["step"] = state.get("step", 0) + 1
        projected = _in_subspace(gradient, state, group)
        direction = adam(state, "projected", projected, group)
        update = project_back(direction, state["basis"], is_wide(gradient))
        weight.add_(update, alpha=-group["lr"] * group["scale"])


def _in_subspace(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """The projected gradient; the subspace is a new one if it was time to switch."""
    if "basis" not in state or state["switch"]:
        state["basis"] = randomized_basis(gradient, group["rank"])
        state["first_unit"] = _unit(project(gradient, state["basis"]))
        state["projections"], state["switch"] = 1, False
    projected = project(gradient, state["basis"])
    state["projections"] += 1
    if state["projections"] % group["verifying_gap"] == 0:
        displacement = torch.linalg.vector_norm(_unit(projected) - state["first_unit"])
        state["switch"] = float(displacement) / state["projections"] < group["threshold"]
    return projected


def _unit(matrix: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(matrix)
    return matrix / norm.clamp_min(torch.finfo(matrix.dtype).tiny)
