"""GradNormLoRP: weights as lengths and directions, whose gradients are projected on both sides.

Huang, Shen, Zhu, Rudinac, Kanoulas: "Gradient Weight-normalized Low-rank Projection for Efficient LLM Training",
arXiv 2412.19616: weights are normalised, w = δ v / ‖v‖, and the gradient D of the directions is replaced by
U η(Uᵀ D V) Vᵀ with U and V from its SVD and η an optimizer's rule, here Adam. One length per output, as in the
authors' optimizer for whole weights; the LoRA factors that the paper adds when a model is fine-tuned through PEFT are
`trainable: low_rank` here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from worker.alignment.optimizers.subspace import adam

#: steps between two SVDs: the authors' default
_GAP = 200


class GradNormLoRP(Optimizer):
    """v ← v - lr · U Adam(Uᵀ ∇v V) Vᵀ and δ ← δ - lr · Adam(∇δ), for W = δ v / ‖v‖ with a length δ per row.

    v is not stored: it is the row's direction times its length, and only that is kept.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        rank: int,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        gap: int = _GAP,
    ) -> None:
        super().__init__(params, {"lr": lr, "rank": rank, "betas": betas, "eps": eps, "gap": gap})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)
        return loss

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
