"""Magnitude and Wanda: masks from weights and the size of their inputs; weights that stay keep their values."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from worker.pruning.unstructured.masks import all_but_smallest, all_but_smallest_of_rows, largest_of_neighbours
from worker.pruning.unstructured.sparsity import SemiStructured, Sparsity


class Pruned(NamedTuple):
    """A matrix `(out, in)` in the dtype it had, zero where `kept` (bool, same shape) is False."""

    weight: Tensor
    kept: Tensor


def by_magnitude(weight: Tensor, sparsity: Sparsity) -> Pruned:
    """The weights of smallest absolute value go, wherever in the matrix they are, or in each group of neighbours."""
    scores = weight.abs().float()
    if isinstance(sparsity, SemiStructured):
        return _pruned(weight, _of_neighbours(scores, sparsity))
    return _pruned(weight, all_but_smallest(scores, len(weight) * sparsity.removed(0, weight.shape[1])))


def by_wanda(weight: Tensor, squares: Tensor, sparsity: Sparsity) -> Pruned:
    """|weight| × L2 norm of its input, compared within each output row (arXiv 2306.11695, equation 1).

    `squares` `(in,)`: sum over the calibration tokens of each input channel's square, or its mean. Without any input
    (an expert that no token reached) magnitudes decide.
    """
    norms = squares.float().sqrt() if squares.any() else torch.ones_like(squares)
    scores = weight.abs().float().mul_(norms)
    if isinstance(sparsity, SemiStructured):
        return _pruned(weight, _of_neighbours(scores, sparsity))
    return _pruned(weight, all_but_smallest_of_rows(scores, sparsity.removed(0, weight.shape[1])))


def _of_neighbours(scores: Tensor, sparsity: SemiStructured) -> Tensor:
    return largest_of_neighbours(scores.view(len(scores), -1, sparsity.of), sparsity.kept, dim=-1).flatten(1)


def _pruned(weight: Tensor, kept: Tensor) -> Pruned:
    return Pruned(weight.masked_fill(~kept, 0), kept)
