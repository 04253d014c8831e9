"""The stages of a job, in the order in which they run, and which of them a recipe asks for."""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from publisher.recipe.recipe import Recipe


class Stage(StrEnum):
    FETCH = "fetch"
    CALIBRATE = "calibrate"
    PRUNE = "prune"
    ALIGN = "align"
    QUANTIZE = "quantize"
    EVALUATE = "evaluate"
    PACKAGE = "package"
    PUBLISH = "publish"


def planned_stages(recipe: Recipe, *, publishes: bool, until: Stage | None = None) -> list[Stage]:
    """The stages that a variant takes, in order, up to and including `until`."""
    stages = list(Stage)
    if until is not None:
        stages = stages[: stages.index(until) + 1]
    return [stage for stage in stages if _is_asked_for(stage, recipe, publishes=publishes)]


def _is_asked_for(stage: Stage, recipe: Recipe, *, publishes: bool) -> bool:
    match stage:
        case Stage.ALIGN:
            return recipe.alignment is not None
        case Stage.EVALUATE:
            return recipe.evaluation is not None
        case Stage.PUBLISH:
            return publishes
        case Stage.FETCH | Stage.CALIBRATE | Stage.PRUNE | Stage.QUANTIZE | Stage.PACKAGE:
            return True
        case _:
            assert_never(stage)
