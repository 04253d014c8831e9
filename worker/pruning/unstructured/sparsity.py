"""How many weights go and where they may stand: anywhere in a matrix, or n of every m neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, assert_never

from torch import Tensor

from publisher.errors import RequestFault
from publisher.recipe.criteria.spec import PruningMethod
from publisher.recipe.pruning import Pruning
from worker.pruning.unstructured.masks import all_but_smallest, all_but_smallest_of_rows, largest_of_neighbours


class Pruned(NamedTuple):
    """A matrix `(out, in)` in the dtype it had, zero where `kept` (bool, same shape) is False."""

    weight: Tensor
    kept: Tensor


@dataclass(frozen=True)
class Unstructured:
    """Of a matrix `(out, in)`, `out * int(in * ratio)` weights go; the same number with every criterion."""

    ratio: float

    def removed(self, start: int, stop: int) -> int:
        """Weights per output that go from the input columns `start … stop - 1`; ranges that meet add up exactly."""
        return int(stop * self.ratio) - int(start * self.ratio)

    def without_smallest(self, weight: Tensor, scores: Tensor, *, of_rows: bool) -> Pruned:
        """`weight` without those of smallest `scores` `(out, in)` ≥ 0: of each row, or of the whole matrix."""
        removed = self.removed(0, weight.shape[1])
        if of_rows:
            return _masked(weight, all_but_smallest_of_rows(scores, removed))
        return _masked(weight, all_but_smallest(scores, len(weight) * removed))


@dataclass(frozen=True)
class SemiStructured:
    """`kept` of every `of` neighbouring input columns of each output stay ("2:4")."""

    kept: int
    of: int

    def without_smallest(self, weight: Tensor, scores: Tensor, *, of_rows: bool) -> Pruned:
        """The same of every group of neighbours, whatever else is compared without a pattern."""
        groups = scores.view(len(scores), -1, self.of)
        return _masked(weight, largest_of_neighbours(groups, self.kept, dim=-1).flatten(1))


Sparsity = Unstructured | SemiStructured


def sparsity_of(pruning: Pruning) -> Sparsity:
    """What a recipe asks of every matrix. Raises RequestFault for a method that removes no single weights."""
    match pruning.method:
        case PruningMethod.SEMI_STRUCTURED:
            return SemiStructured(pruning.pattern.kept, pruning.pattern.of)
        case PruningMethod.UNSTRUCTURED:
            return Unstructured(pruning.ratio)
        case PruningMethod.STRUCTURED:
            raise RequestFault(
                f"method {pruning.method} removes no single weights.",
                field="recipe.pruning.method",
                way_out="Use method semi_structured or unstructured.",
            )
        case _:
            assert_never(pruning.method)


def _masked(weight: Tensor, kept: Tensor) -> Pruned:
    return Pruned(weight.masked_fill(~kept, 0), kept)
