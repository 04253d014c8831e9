"""What a recipe leaves to the base model: choices that need its layers."""

from __future__ import annotations

from collections.abc import Iterable

from publisher.architecture.structure import LayerKind, Unit
from publisher.recipe import Objective, Recipe, Trainable


def gradient_matching_of(recipe: Recipe, kinds: Iterable[LayerKind]) -> float:
    """The weight that one device matches gradients with, of a base model of such layers; 0: it does not.

    Not by default where a router chooses experts: the difference quotient that it takes jumps with its choice.
    """
    alignment = recipe.alignment
    if alignment is None or not alignment.steps:
        return 0.0
    if alignment.gradient_matching is not None:
        return alignment.gradient_matching
    return float(
        recipe.pruning.method.removes_units
        and alignment.objective is Objective.DISTILLATION
        and alignment.trainable is Trainable.ALL
        and alignment.teacher_top_k is None
        and not any(Unit.EXPERTS in kind.units for kind in kinds)
    )
