"""Every optimizer by its name."""

from __future__ import annotations

from functools import cache

from publisher.recipe.declared import declaration
from publisher.recipe.optimizers.spec import Optimizer, OptimizerSpec


@cache
def optimizer_spec(optimizer: Optimizer) -> OptimizerSpec:
    """Raises NotDeclared naming the file that is missing."""
    return declaration("publisher.recipe.optimizers", optimizer, OptimizerSpec)


def optimizers() -> list[OptimizerSpec]:
    """All of them, in the enum's order."""
    return [optimizer_spec(optimizer) for optimizer in Optimizer]
