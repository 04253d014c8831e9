"""SparseGPT (arXiv 2301.00774): weights go one input column at a time, and the columns behind make up for them.

H = X Xᵀ / tokens + damping is factored as worker.numerics.inverse_hessian says. Matrices are handled transposed,
`(in, out)`, so that a column of the layer is a row in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from worker.numerics.inverse_hessian import inverse_of_upper, ranges, upper_factor
from worker.pruning.unstructured.masks import all_but_smallest, largest_of_neighbours
from worker.pruning.unstructured.sparsity import Pruned, SemiStructured, Sparsity, Unstructured

#: columns whose masks are chosen together, and whose effect on later columns is applied at once (the paper's 128)
BLOCK = 128
#: columns of a block that are done one by one before the rest of the block hears of them; for speed only
_STEP = 32
#: share of the Hessian's mean diagonal that is added to it (the paper's 1 %), and what is tried if that is too little
_DAMPING = (0.01, 0.1, 1.0)


def by_sparsegpt(weights: Sequence[Tensor], hessian: Tensor, sparsity: Sparsity) -> list[Pruned]:
    """Prune matrices `(out, in)` that read one input with Hessian X Xᵀ / tokens `(in, in)`, in the Hessian's dtype.

    The matrices do not influence each other; together they are faster. `hessian` is overwritten. An input channel
    that was always zero has the least Hessian a channel can have, the damping. Raises NotPositiveDefinite.
    """
    factor = upper_factor(hessian, _DAMPING)
    outputs = [0, *torch.tensor([len(weight) for weight in weights]).cumsum(0).tolist()]
    # first what earlier columns owe to each column, then the column's pruned weights: (in, out of all matrices)
    columns = torch.zeros(len(factor), outputs[-1], dtype=factor.dtype, device=factor.device)
    kept = torch.empty_like(columns, dtype=torch.bool)
    for block in ranges(len(factor), BLOCK):
        original = _columns(weights, block, factor.dtype)
        inverse = inverse_of_upper(factor[block, block])
        columns[block] = torch.addmm(original, inverse.T, columns[block])
        kept[block] = _prune_block(columns[block], inverse, outputs, sparsity, block)
        columns[block].masked_fill_(~kept[block], 0)
        lost = original.sub_(columns[block])
        columns[block.stop :].addmm_(factor[block, block.stop :].T, lost)
    return [
        Pruned(columns[:, start:stop].T.to(weight.dtype).contiguous(), kept[:, start:stop].T.contiguous())
        for weight, (start, stop) in zip(weights, pairwise(outputs), strict=True)
    ]


def _prune_block(weights: Tensor, inverse: Tensor, outputs: Sequence[int], sparsity: Sparsity, block: slice) -> Tensor:
    """The mask `(columns, out)` of a block whose `weights` have made up for all columns before it, and do for each
    other here. Weights that go are not set to zero yet.
    """
    columns = _Columns(weights, inverse)
    if isinstance(sparsity, SemiStructured):
        return _prune_groups(columns, sparsity)
    return _prune_together(columns, outputs, sparsity, block)


class _Columns:
    """Neighbouring columns of a layer while they are pruned: `weights` `(columns, out)`, changed in place.

    `inverse` `(columns, columns)` is the paper's factor of the inverse Hessian, upper triangular.
    """

    def __init__(self, weights: Tensor, inverse: Tensor) -> None:
        self.weights = weights
        self.inverse = inverse
        self.scale = 1 / inverse.diagonal()[:, None]
        #: the paper's E: weights that went, by the inverse's diagonal
        self.errors = torch.empty_like(weights)

    def __len__(self) -> int:
        return len(self.weights)

    def scores(self, columns: slice) -> Tensor:
        """By how much the layer's squared error grows if a weight goes now (square root of equation 3)."""
        return (self.weights[columns] * self.scale[columns]).abs_()

    def make_up(self, columns: slice) -> None:
        """For all errors before `columns`."""
        if columns.start:
            before = slice(0, columns.start)
            self.weights[columns].addmm_(self.inverse[before, columns].T, self.errors[before], alpha=-1)

    def remove(self, columns: slice, kept: Tensor) -> None:
        """One column after the other; each makes up for those of `columns` before it."""
        removed = self.scale[columns] * ~kept
        for column, scaled in enumerate(removed, columns.start):
            weights, before = self.weights[column], slice(columns.start, column)
            if column > columns.start:
                weights.addmv_(self.errors[before].T, self.inverse[before, column], alpha=-1)
            torch.mul(weights, scaled, out=self.errors[column])


def _prune_together(columns: _Columns, outputs: Sequence[int], sparsity: Unstructured, block: slice) -> Tensor:
    """Unstructured: each matrix loses its smallest weights of the block."""
    removed = sparsity.removed(block.start, block.stop)
    scores = columns.scores(slice(0, len(columns)))
    kept = torch.cat(
        [all_but_smallest(scores[:, start:stop], removed * (stop - start)) for start, stop in pairwise(outputs)], dim=1
    )
    for step in ranges(len(columns), _STEP):
        columns.make_up(step)
        columns.remove(step, kept[step])
    return kept


def _prune_groups(columns: _Columns, sparsity: SemiStructured) -> Tensor:
    """n:m: a group is chosen when its turn comes."""
    kept = torch.empty_like(columns.weights, dtype=torch.bool)
    for group in ranges(len(columns), sparsity.of):
        columns.make_up(group)
        kept[group] = largest_of_neighbours(columns.scores(group), sparsity.kept, dim=0)
        columns.remove(group, kept[group])
    return kept


def _columns(weights: Sequence[Tensor], columns: slice, dtype: torch.dtype) -> Tensor:
    """`(columns, out of all matrices)`"""
    return torch.cat([weight[:, columns].T.to(dtype) for weight in weights], dim=1)
