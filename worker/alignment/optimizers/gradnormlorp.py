"""GradNormLoRP: weights as lengths and directions, and Adam on the directions' gradients, projected on both sides.

Huang, Shen, Zhu, Rudinac, Kanoulas: "Gradient Weight-normalized Low-rank Projection for Efficient LLM Training",
arXiv 2412.19616. Each weight vector is w = δ v / ‖v‖, and the directions' gradient D is replaced by U η(Uᵀ D V) Vᵀ,
U and V from its SVD, η an optimizer's rule, here Adam. A vector is what makes one output, a row, as in the authors'
code; from there the SVD's interval is, too. The code's update differs from the paper's, which is followed: it projects
one side alone and leaves out of D what is along v. The factors I J that the paper trains in place of W when a model is
fine-tuned are `trainable: low_rank` here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from worker.alignment.optimizers.subspace import MatrixOptimizer, adam

#: steps between two SVDs
_GAP = 200


class GradNormLoRP(MatrixOptimizer):
    """v ← v - lr · U Adam(Uᵀ ∇v V) Vᵀ and δ ← δ - lr · Adam(∇δ), for W = δ v / ‖v‖ with a length δ per row.

    v is not stored: it is the row's direction times ‖v‖, and only that is kept.
    """

    def __init__(self, params: Iterable[Tensor], *, gap: int = _GAP, **common: Any) -> None:
        super().__init__(params, gap=gap, **common)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        lengths = _row_norms(weight)  # δ, (out, 1)
        units = weight / lengths
        norms = state.setdefault("norms", lengths.clone())  # ‖v‖, (out, 1)
        by_lengths = (gradient * units).sum(1, keepdim=True)
        by_directions = (gradient - units * by_lengths).mul_(lengths / norms)
        if state.get("step", 0) % group["gap"] == 0:
            state["left"], state["right"] = _singular_vectors(by_directions, group["rank"])
        state["step"] = state.get("step", 0) + 1
        inner = adam(state, "directions", state["left"].T @ by_directions @ state["right"], group)
        directions = units.mul_(norms).sub_(state["left"] @ inner @ state["right"].T, alpha=group["lr"])
        lengths = lengths.sub_(adam(state, "lengths", by_lengths, group), alpha=group["lr"])
        state["norms"] = _row_norms(directions)
        weight.copy_(directions.mul_(lengths / state["norms"]))


def _row_norms(matrix: Tensor) -> Tensor:
    """(out, 1); a row of zeros counts as tiny, so that it can be divided by."""
    norms: Tensor = torch.linalg.vector_norm(matrix, dim=1, keepdim=True)
    return norms.clamp_min(torch.finfo(matrix.dtype).tiny)


def _singular_vectors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U (out, rank) and V (in, rank) of the largest singular values."""
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left[:, :rank].contiguous(), right[:rank].T.contiguous()
