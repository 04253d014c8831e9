"""The factor of an inverse Hessian that optimal brain surgery goes along, column after column.

SparseGPT (arXiv 2301.00774) and GPTQ (arXiv 2210.17323) read the factor U of the inverse Hessian, H⁻¹ = Uᵀ U. Here H is
factored as R Rᵀ, R upper triangular, so U = R⁻¹ and only blocks on R's diagonal are ever inverted. What the columns
before block B have lost, D = original - what became of them, changes B's columns by Σ D_k R_kB U_BB when their turn
comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


class NotPositiveDefinite(ValueError):
    """The Hessian cannot be factored even with the strongest damping."""


def upper_factor(hessian: Tensor, dampings: Sequence[float]) -> Tensor:
    """R, upper triangular, with R Rᵀ = `hessian` + damping. Overwrites `hessian` `(in, in)`.

    The first of `dampings`, shares of the mean of its diagonal in rising order, that is enough is what is added there.
    Raises NotPositiveDefinite if none is.
    """
    scale = hessian.diagonal().mean()
    unit = torch.where(scale > 0, scale, torch.ones_like(scale))
    added = 0.0
    for damping in dampings:
        hessian.diagonal().add_((damping - added) * unit)
        added = damping
        # Cholesky gives a lower factor; of the matrix in reverse order, that is R in reverse order
        lower, failed = torch.linalg.cholesky_ex(hessian.flip(0, 1))
        if not failed:
            upper: Tensor = lower.flip(0, 1)
            return upper
    raise NotPositiveDefinite(f"a Hessian of {len(hessian)} inputs is not positive definite at damping {added}")


def inverse_of_upper(matrix: Tensor) -> Tensor:
    """Of a block `(columns, columns)` on R's diagonal."""
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    inverse: Tensor = torch.linalg.solve_triangular(matrix, identity, upper=True)
    return inverse


def ranges(length: int, step: int) -> Iterator[slice]:
    """Of `length` columns, `step` at a time."""
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))
