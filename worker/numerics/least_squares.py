"""Weighted least squares with a ridge towards a known weight, from sums over batches of equations."""

from __future__ import annotations

import torch
from torch import Tensor

from worker.streaming.files import all_finite

#: share of the mean square of what a matrix reads that is added to each square, at least; of little text it is the
#: number of columns divided by that of equations, so that nothing is learnt by heart
_RIDGE = 1e-2


class LeastSquares:
    """Which W `(out, in)` comes closest to what is wanted, not far from `weight`."""

    def __init__(self, weight: Tensor) -> None:
        inputs = weight.shape[1]
        self._weight = weight.float().clone()
        self._inputs = torch.zeros(inputs, inputs, dtype=torch.float32, device=weight.device)
        self._products = torch.zeros(*reversed(weight.shape), dtype=torch.float32, device=weight.device)
        self._rows, self._wanted = 0, 0.0

    def add(self, inputs: Tensor, wanted: Tensor, weights: Tensor) -> None:
        """`(rows, length, in)`, `(rows, length, out)` and `(rows, length)`."""
        roots = weights.flatten().sqrt()[:, None]
        x, y = (states.flatten(0, -2).float() * roots for states in (inputs, wanted))
        self._inputs.addmm_(x.T, x)
        self._products.addmm_(x.T, y)
        self._rows += len(x)
        self._wanted += float(y.square().sum())

    def is_finite(self) -> bool:
        return all_finite(self._inputs) and all_finite(self._products)

    def squares(self) -> Tensor:
        """Σ w z zᵀ + λ `(in, in)`, in double precision: what a matrix reads is nearly dependent."""
        squares = self._inputs.double()
        squares.diagonal().add_(self._ridge())
        return squares

    def solution(self) -> Tensor:
        """`(out, in)` float32."""
        products = self._products.double() + self._ridge() * self._weight.T
        return torch.cholesky_solve(products, torch.linalg.cholesky(self.squares())).T.float()

    def _ridge(self) -> Tensor:
        share = max(_RIDGE, len(self._inputs) / self._rows)
        return share * self._inputs.diagonal().double().mean().clamp_min(torch.finfo(torch.float32).tiny)

    def error(self, weight: Tensor) -> float:
        """Relative to what is wanted."""
        weight = weight.double()
        squares = torch.einsum("oi,ij,oj->", weight, self._inputs.double(), weight)
        both = (weight.T * self._products.double()).sum()
        return max(0.0, float(squares - 2 * both) + self._wanted) / self._wanted if self._wanted else 0.0
