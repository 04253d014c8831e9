"""What methods that work on projections of a gradient share: sides, bases, and Adam on what is projected.

As in GaLore (arXiv 2403.03507) the smaller side of a matrix is projected: a gradient (m, n) becomes (rank, n) if
m < n, otherwise (m, rank).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

import torch
from torch import Tensor

#: More columns than asked for, and products with A Aᵀ, of a randomized SVD (Halko, Martinsson, Tropp 2011).
_OVERSAMPLING, _POWER_ITERATIONS = 8, 1


class MatrixOptimizer(torch.optim.Optimizer):
    """Steps matrix by matrix; what becomes of one is up to the method, and so are further `options` of groups."""

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        rank: int,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        **options: float,
    ) -> None:
        super().__init__(params, {"lr": lr, "rank": rank, "betas": betas, "eps": eps, **options})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)
        return loss

    @abstractmethod
    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Change `weight` (out, in) in place."""


def is_wide(gradient: Tensor) -> bool:
    """Whether the rows are what is projected."""
    return gradient.shape[0] < gradient.shape[1]


def project(gradient: Tensor, basis: Tensor) -> Tensor:
    """(m, n) and a basis (smaller side, rank) → (rank, n) or (m, rank)."""
    return basis.T @ gradient if is_wide(gradient) else gradient @ basis


def project_back(projected: Tensor, basis: Tensor, wide: bool) -> Tensor:
    """The opposite of `project`, within the subspace."""
    return basis @ projected if wide else projected @ basis.T


def adam(state: MutableMapping[str, Any], name: str, gradient: Tensor, group: MutableMapping[str, Any]) -> Tensor:
    """Adam's direction m̂ / (√v̂ + ε) of `gradient`, whose moments are `state`'s of that name.

    `state["step"]` is the number of this step, from 1.
    """
    (first, second), step = group["betas"], state["step"]
    if f"{name}_mean" not in state:
        state[f"{name}_mean"], state[f"{name}_square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    mean, square = state[f"{name}_mean"], state[f"{name}_square"]
    mean.lerp_(gradient, 1 - first)
    square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    root = (square / (1 - second**step)).sqrt_().add_(group["eps"])
    direction: Tensor = mean / (1 - first**step) / root
    return direction


def randomized_basis(gradient: Tensor, rank: int) -> Tensor:
    """Orthonormal (smaller side, rank): the leading singular vectors, by a randomized SVD with power iteration.

    Draws from torch's own generator of the device, which the training state holds.
    """
    matrix = gradient if is_wide(gradient) else gradient.T  # (smaller, larger)
    rank = min(rank, len(matrix))
    columns = min(rank + _OVERSAMPLING, len(matrix))
    sketch = matrix @ torch.randn(matrix.shape[1], columns, device=matrix.device, dtype=matrix.dtype)
    frame: Tensor = torch.linalg.qr(sketch).Q
    for _ in range(_POWER_ITERATIONS):
        frame = torch.linalg.qr(matrix @ (matrix.T @ frame)).Q
    inner: Tensor = torch.linalg.svd(frame.T @ matrix, full_matrices=False).U  # (columns, columns)
    return frame @ inner[:, :rank]
