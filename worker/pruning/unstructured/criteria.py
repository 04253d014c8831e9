"""Magnitude and Wanda: masks from weights and the size of their inputs; weights that stay keep their values.

Criteria's declarations (publisher/recipe/criteria) name the functions that take a group of matrices: `Prune`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from worker.pruning.unstructured.sparsity import Pruned, Sparsity

#: what a criterion's declaration names: (matrices `(out, in)` that read one input, what is known of that input, how
#: many weights go) → each of them pruned, in their order. Matrices stay as they are; what is known may be overwritten
Prune = Callable[[Sequence[Tensor], Tensor | None, Sparsity], Iterable[Pruned]]


def prune_by_magnitude(weights: Sequence[Tensor], inputs: Tensor | None, sparsity: Sparsity) -> Iterable[Pruned]:
    """One at a time; inputs do not matter."""
    return (by_magnitude(weight, sparsity) for weight in weights)


def prune_by_wanda(weights: Sequence[Tensor], inputs: Tensor, sparsity: Sparsity) -> Iterable[Pruned]:
    """One at a time; `inputs` `(in,)` as in `by_wanda`."""
    return (by_wanda(weight, inputs, sparsity) for weight in weights)


def by_magnitude(weight: Tensor, sparsity: Sparsity) -> Pruned:
    """The weights of smallest absolute value go, wherever in the matrix they are, or in each group of neighbours."""
    return sparsity.without_smallest(weight, weight.abs().float(), of_rows=False)


def by_wanda(weight: Tensor, squares: Tensor, sparsity: Sparsity) -> Pruned:
    """|weight| × L2 norm of its input, compared within each output row (arXiv 2306.11695, equation 1).

    `squares` `(in,)`: sum over the calibration tokens of each input channel's square, or its mean. Without any input
    (an expert that no token reached) magnitudes decide.
    """
    norms = squares.float().sqrt() if squares.any() else torch.ones_like(squares)
    return sparsity.without_smallest(weight, weight.abs().float().mul_(norms), of_rows=True)
