"""Every stage by its name."""

from __future__ import annotations

from typing import Any, assert_never

from publisher.recipe.stages import Stage
from worker.stages.spec import StageSpec


def spec_of(stage: Stage) -> StageSpec[Any]:  # noqa: PLR0911 - one each
    """Imported when it is its turn: a build that ends with prune needs neither bitsandbytes nor matplotlib."""
    match stage:
        case Stage.FETCH:
            from worker.stages.fetch import FETCH

            return FETCH
        case Stage.CALIBRATE:
            from worker.stages.calibrate import CALIBRATE

            return CALIBRATE
        case Stage.PRUNE:
            from worker.stages.prune.stage import PRUNE

            return PRUNE
        case Stage.ALIGN:
            from worker.stages.align.stage import ALIGN

            return ALIGN
        case Stage.QUANTIZE:
            from worker.stages.quantize import QUANTIZE

            return QUANTIZE
        case Stage.EVALUATE:
            from worker.stages.evaluate import EVALUATE

            return EVALUATE
        case Stage.PACKAGE:
            from worker.stages.package import PACKAGE

            return PACKAGE
        case Stage.PUBLISH:
            from worker.stages.publish import PUBLISH

            return PUBLISH
        case _:
            assert_never(stage)
