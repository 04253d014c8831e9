"""Checkpoint selection: when training looks at its weights, and which of them it ends with.

What was looked at is kept in the progress, and weights in files beside the training state: both survive a kill. Weights
of a step that is trained again after one are the same to the last bit, so that writing them again changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from worker.alignment.distributed.ranks import Log, Ranks
from worker.alignment.rounding import Rounding, no_rounding
from worker.alignment.state import Check, TrainingProgress, restore_weights
from worker.training.batch_loss import BatchLoss
from worker.training.held_out import mean_loss


def check_steps(steps: int, checks: int) -> list[int]:
    """`checks` numbers of finished steps at equal distances, the last one `steps`."""
    return [round(steps * (number + 1) / checks) for number in range(checks)]


def best_check(checks: list[Check]) -> Check | None:
    """The first of those with the lowest loss; None if none has one."""
    measured = [check for check in checks if check.loss is not None]
    return min(measured, key=lambda check: check.loss or 0.0, default=None)


class CheckpointSelection(Protocol):
    """Training asks `is_due` between steps, and if so `look`s; it ends early when it `is_over`."""

    def is_due(self, progress: TrainingProgress) -> bool: ...

    def look(self, progress: TrainingProgress, pause: Callable[[], None]) -> Check: ...

    def is_over(self, progress: TrainingProgress) -> bool: ...

    def finish(self, progress: TrainingProgress) -> None:
        """Leave the model with the weights to end with, where that is known."""


class LastWeights:
    """Nothing is looked at."""

    def is_due(self, progress: TrainingProgress) -> bool:
        return False

    def look(self, progress: TrainingProgress, pause: Callable[[], None]) -> Check:
        raise AssertionError("nothing is due")

    def is_over(self, progress: TrainingProgress) -> bool:
        return False

    def finish(self, progress: TrainingProgress) -> None:
        return None


class _AtSteps:
    def __init__(self, steps: int, checks: int) -> None:
        self._steps = frozenset(check_steps(steps, checks))

    def is_due(self, progress: TrainingProgress) -> bool:
        looked_at = progress.checks[-1].step if progress.checks else 0
        return progress.steps in self._steps and looked_at < progress.steps

    def is_over(self, progress: TrainingProgress) -> bool:
        return False


class BestHeldOut(_AtSteps):
    """The loss on `sequences` (rows, length) decides, of weights as `rounding` makes them; `patience` checks without a
    better one end training."""

    def __init__(
        self,
        model: PreTrainedModel,
        batch_loss: BatchLoss,
        sequences: Tensor,
        *,
        steps: int,
        checks: int,
        patience: int,
        file: Path,
        log: Log,
        ranks: Ranks,
        rounding: Rounding | None = None,
    ) -> None:
        super().__init__(steps, checks)
        self.model, self.batch_loss, self.sequences = model, batch_loss, sequences
        self.patience, self.file, self.log, self.ranks = patience, file, log, ranks
        self.rounding = rounding or no_rounding()

    def look(self, progress: TrainingProgress, pause: Callable[[], None]) -> Check:
        with self.rounding.rounded():
            loss = mean_loss(self.model, self.batch_loss, self.sequences, pause)
        loss = self.ranks.mean(loss)
        check = Check(step=progress.steps, loss=loss if math.isfinite(loss) else None)
        best = best_check([*progress.checks, check])
        if best is check:
            self.ranks.save_weights(self.file, self.model)
        self.log(f"Held-out loss after step {check.step}: {loss:.4f}{', the best so far' if best is check else ''}.")
        return check

    def is_over(self, progress: TrainingProgress) -> bool:
        best = best_check(progress.checks)
        since = [check for check in progress.checks if best is None or check.step > best.step]
        return len(since) >= self.patience

    def finish(self, progress: TrainingProgress) -> None:
        best = best_check(progress.checks)
        if best is not None:
            restore_weights(self.model, load_file(self.file))
            self.log(f"Alignment ends with the weights after step {best.step} of {progress.steps}.")


class Candidates(_AtSteps):
    """Weights are kept, one file a check in `folder`; what they are worth is found out after training (probing.py)."""

    def __init__(self, model: PreTrainedModel, *, steps: int, checks: int, folder: Path, ranks: Ranks) -> None:
        super().__init__(steps, checks)
        self.model, self.folder, self.ranks = model, folder, ranks

    def look(self, progress: TrainingProgress, pause: Callable[[], None]) -> Check:
        self.ranks.save_weights(candidate_file(self.folder, progress.steps), self.model)
        return Check(step=progress.steps)

    def finish(self, progress: TrainingProgress) -> None:
        return None


def candidate_file(folder: Path, step: int) -> Path:
    return folder / f"after-step-{step}.safetensors"
