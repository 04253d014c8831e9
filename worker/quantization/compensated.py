"""GPTQ (arXiv 2210.17323) onto NF4: weights are rounded one input column at a time, and columns behind make up for it.

What comes out is not rounded: each weight is left where it was when its turn came, so that the nearest 4-bit value,
which whoever stores it takes, is GPTQ's. So it can be trained on before it is rounded, and files are as ever. The scale
of a block is that of the weights as they came: its largest stays as it is, and the others no larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from worker.numerics.inverse_hessian import inverse_of_upper, ranges, upper_factor
from worker.quantization.packing import BLOCK, Grid

#: columns whose effect on later ones is applied at once (the paper's 128)
_COLUMNS = 128


def compensated(weights: Sequence[Tensor], hessian: Tensor) -> list[Tensor]:
    """Of matrices `(out, in)` that read one input with Hessian X Xᵀ `(in, in)`, what to round instead of them: bf16.

    The matrices, of one dtype, do not influence each other; together they are faster. `hessian`, in double precision,
    is overwritten. Raises NotPositiveDefinite.
    """
    factor = upper_factor(hessian, [0.0]).to(weights[0].dtype)
    grids = [_Columns(weight) for weight in weights]
    outputs = [0, *torch.tensor([len(weight) for weight in weights]).cumsum(0).tolist()]
    # what earlier columns owe to each column: (in, out of all matrices)
    owed = torch.zeros(len(factor), outputs[-1], dtype=factor.dtype, device=factor.device)
    found = torch.empty(owed.shape, dtype=torch.bfloat16, device=factor.device)
    for columns in ranges(len(factor), _COLUMNS):
        original = torch.cat([weight[:, columns].T for weight in weights], dim=1)
        inverse = inverse_of_upper(factor[columns, columns])
        block = torch.addmm(original, inverse.T, owed[columns])
        errors = torch.empty_like(block)
        for column in range(len(block)):
            values = block[column].addmv_(errors[:column].T, inverse[:column, column], alpha=-1)
            stored, rounded = _take(grids, columns.start + column, values, outputs)
            found[columns.start + column] = stored
            torch.div(values - rounded, inverse[column, column], out=errors[column])
            block[column] = rounded
        owed[columns.stop :].addmm_(factor[columns, columns.stop :].T, original.sub_(block))
    return [found[:, start:stop].T.contiguous() for start, stop in pairwise(outputs)]


class _Columns:
    """Columns of a matrix, whose weights lie in blocks that go along its rows and from one row to the next."""

    def __init__(self, weight: Tensor) -> None:
        self._grid, self._weight = Grid(weight), weight
        self._rows = torch.arange(len(weight), device=weight.device) * weight.shape[1]
        within = self._grid.blocks.abs().argmax(1)
        self._largest = torch.arange(len(within), device=weight.device) * BLOCK + within

    def take(self, column: int, values: Tensor) -> tuple[Tensor, Tensor]:
        """What of a column's `values` `(out,)` is to be stored, so that no scale changes; and what that is in 4 bits.

        Both in bf16.
        """
        places = self._rows + column
        blocks = places // BLOCK
        scales = self._grid.scales[blocks]
        stored = values.float().clamp(-scales, scales).to(torch.bfloat16)
        is_largest = self._largest[blocks] == places
        stored = torch.where(is_largest, self._weight[:, column].to(torch.bfloat16), stored)
        return stored, self._grid.nearest(stored.float(), scales, self._grid.stored[blocks])


def _take(grids: Sequence[_Columns], column: int, values: Tensor, outputs: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Of all matrices, whose values begin at `outputs`; the second in the dtype of `values`."""
    parts = [
        grid.take(column, values[start:stop]) for grid, (start, stop) in zip(grids, pairwise(outputs), strict=True)
    ]
    stored, rounded = (torch.cat(each) for each in zip(*parts, strict=True))
    return stored, rounded.to(values.dtype)
