"""Which steps are not taken, and when that is a failure.

The rule is that of OLMo-core's SkipStepOptimizer: a step whose loss or gradient norm is more than 6 standard deviations
above the mean of the last 128 is left out. It needs no threshold for a model or a corpus, and unlike clipping keeps a
bad batch out of Adam's moments as well. Two things differ: it starts after 16 steps, not 64, because an alignment has
48 by default; and skipped steps do not enter the mean, so that a training that does not come back is not taken for a
new normal, but ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from publisher.errors import RequestFault
from worker.alignment.state import TrainingProgress

_WINDOW = 128
_ENOUGH = 16
_DEVIATIONS = 6.0
#: Skipped one after the other: weights do not change meanwhile, so it is they and not the batches that are bad.
_TOO_MANY = 10


def take_step(progress: TrainingProgress, loss: float, norm: float) -> bool:
    """Whether the step with this loss and gradient norm is to be taken; books it in `progress`.

    Raises RequestFault if the first step is not, or if too many one after the other are not.
    """
    good = (
        math.isfinite(loss)
        and math.isfinite(norm)
        and not _stands_out(loss, progress.recent_losses)
        and not _stands_out(norm, progress.recent_norms)
    )
    if good:
        progress.recent_losses = [*progress.recent_losses, loss][-_WINDOW:]
        progress.recent_norms = [*progress.recent_norms, norm][-_WINDOW:]
        progress.skipped_in_a_row = 0
        return True
    progress.skipped_steps += 1
    progress.skipped_in_a_row += 1
    if progress.steps == 0 or progress.skipped_in_a_row >= _TOO_MANY:
        raise _diverged(progress, loss, norm)
    return False


def _stands_out(value: float, recent: Sequence[float]) -> bool:
    return len(recent) >= _ENOUGH and value > fmean(recent) + _DEVIATIONS * stdev(recent)


def _diverged(progress: TrainingProgress, loss: float, norm: float) -> RequestFault:
    row = progress.skipped_in_a_row
    skipped = "" if row == 1 else f" This and the {row - 1} steps before it were skipped."
    return RequestFault(
        f"alignment diverged at step {progress.steps + 1}: loss {loss}, gradient norm {norm}.{skipped}",
        field="recipe.alignment.learning_rate",
        way_out="Lower alignment.learning_rate or lengthen the warm-up.",
    )
