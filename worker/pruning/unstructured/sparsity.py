"""How many weights go and where they may stand: anywhere in a matrix, or n of every m neighbours."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.recipe.pruning import Pruning, PruningMethod


@dataclass(frozen=True)
class Unstructured:
    """Of a matrix `(out, in)`, `out * int(in * ratio)` weights go; the same number with every criterion."""

    ratio: float

    def removed(self, start: int, stop: int) -> int:
        """Weights per output that go from the input columns `start … stop - 1`; ranges that meet add up exactly."""
        return int(stop * self.ratio) - int(start * self.ratio)


@dataclass(frozen=True)
class SemiStructured:
    """`kept` of every `of` neighbouring input columns of each output stay ("2:4")."""

    kept: int
    of: int


Sparsity = Unstructured | SemiStructured


def sparsity_of(pruning: Pruning) -> Sparsity:
    """What a recipe's non-structured pruning asks of every matrix."""
    if pruning.method is PruningMethod.SEMI_STRUCTURED:
        return SemiStructured(pruning.pattern.kept, pruning.pattern.of)
    return Unstructured(pruning.ratio)
