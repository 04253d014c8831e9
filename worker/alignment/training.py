"""The training loop of alignment: small micro-batches, fp32 master weights, and a state to go on from.

A run that was killed at any moment and started again ends with the same weights, to the last bit, as one that was
not (on one machine, with the same number of threads): data come by index, and the state holds everything else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from transformers import PreTrainedModel

from publisher.errors import PublisherError
from worker.alignment.checkpoint_selection import CheckpointSelection, LastWeights
from worker.alignment.distributed.ranks import Alone, Ranks
from worker.alignment.distributed.tensors import gathered
from worker.alignment.gradient_matching import GradientMatching, Matched
from worker.alignment.rounding import Rounding, no_rounding
from worker.alignment.spikes import take_step
from worker.alignment.state import (
    TrainingProgress,
    random_state,
    restore_training,
    training_state,
)
from worker.alignment.termination import DeferredSigterm
from worker.context import StageContext
from worker.models.measure import current_peak
from worker.training.batch_loss import BatchLoss, accumulate_share
from worker.training.schedule import Schedule

_GRADIENT_NORM = 1.0
#: Saving may take this share of the time; a slow disk makes it rarer.
_SAVING_SHARE = 0.05


class Training:
    """One alignment of `model`, whose parameters that require a gradient `optimizer` trains in place.

    `sequences` is int32 (steps * batch_sequences, length): step i trains on the i-th batch of rows. The state is
    saved to `state_file` every `save_seconds`, when `selection` looked at the weights, and when the job is cancelled or
    the process is asked to end. With several `ranks` each runs this loop. `rounding` is what the loss sees of weights;
    with `matching`, which takes the place of `batch_loss`, it brings back all weights that are moved.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        optimizer: Optimizer,
        batch_loss: BatchLoss,
        sequences: Tensor,
        *,
        schedule: Schedule,
        context: StageContext,
        state_file: Path,
        selection: CheckpointSelection | None = None,
        ranks: Ranks | None = None,
        rounding: Rounding | None = None,
        matching: GradientMatching | None = None,
        save_seconds: float = 30.0,
    ) -> None:
        self.model, self.optimizer, self.batch_loss = model, optimizer, batch_loss
        self.sequences, self.schedule = sequences, schedule
        self.context, self.state_file, self.save_seconds = context, state_file, save_seconds
        self.selection = selection or LastWeights()
        self.device = model.device
        self.ranks = ranks or Alone(self.device)
        self.rounding, self.matching = rounding or no_rounding(), matching
        self.progress = TrainingProgress()

    def run(self) -> TrainingProgress:
        """Train the steps that are missing, and leave the model with the weights that `selection` chose.

        Raises RequestFault when too many steps have no usable loss or gradient (spikes.py), and what the context
        raises when it is checked.
        """
        self._resume()
        self.model.train()
        self._random = random_state(self.device)
        self._save_at = time.monotonic() + self.save_seconds
        with DeferredSigterm() as self._sigterm:
            self._look_if_due()
            while self.progress.steps < self.schedule.steps and not self.selection.is_over(self.progress):
                self._step()
                self._look_if_due()
        self.model.eval()
        self.selection.finish(self.progress)
        return self.progress

    def _resume(self) -> None:
        state = self.ranks.load(self.state_file, self.context.log)
        if state is None:
            return
        restore_training(self.model, self.optimizer, state)
        if self.matching is not None:
            self.matching.restore(state.tensors)
        self.progress = state.progress
        self.context.log(f"Alignment goes on after step {self.progress.steps} of {self.schedule.steps}.")

    def _look_if_due(self) -> None:
        if self.selection.is_due(self.progress):
            check = self.selection.look(self.progress, self._pause_point)
            self.progress.checks.append(check)
            if check.loss is not None:
                self.context.metric("held_out_loss", check.step, check.loss)
            self._save()

    def _step(self) -> None:
        started, step = time.perf_counter(), self.progress.steps
        self._random = random_state(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        batch = self._batch(step)
        waited = time.perf_counter() - started
        with self.rounding.rounded():
            found = self._accumulate(batch)
        loss, norm = self.ranks.mean(found.loss), self._clip()
        if take_step(self.progress, loss, norm):
            self._update(step)
        else:
            self.context.log(f"Step {step + 1} is skipped: loss {loss:.4g}, gradient norm {norm:.4g}.")
        self._random = random_state(self.device)
        self._finish(Matched(loss, found.cosine), time.perf_counter() - started, waited)

    def _accumulate(self, batch: Tensor) -> Matched:
        """Gradients of the loss over `batch`; this process's share of it."""
        if self.matching is not None:
            return self.matching.accumulate(batch, self._pause_point)
        return Matched(accumulate_share(self.model, self.batch_loss, self.ranks.share(batch), self._pause_point))

    def _batch(self, step: int) -> Tensor:
        size = self.schedule.batch_sequences
        return self.sequences[step * size : (step + 1) * size].to(self.device)

    def _clip(self) -> float:
        """The norm of all gradients before they are clipped, wherever their parts are."""
        trained = [weight for weight in self.model.parameters() if weight.grad is not None]
        norm = gathered(get_total_norm([weight.grad for weight in trained if weight.grad is not None]))
        clip_grads_with_norm_(trained, _GRADIENT_NORM, norm)
        return self.ranks.mean(float(norm))

    def _update(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate(step)
        self.optimizer.step()

    def _finish(self, found: Matched, seconds: float, waited: float) -> None:
        """Book a step and tell about it."""
        progress = self.progress
        progress.steps += 1
        progress.seconds += seconds
        progress.waited_seconds += waited
        progress.peak_memory_bytes = max(progress.peak_memory_bytes, current_peak(self.device))
        if math.isfinite(found.loss):
            progress.losses.append(found.loss)
            self.context.metric("loss", progress.steps, found.loss)
        if found.cosine is not None and math.isfinite(found.cosine):
            progress.gradient_cosines.append(found.cosine)
            self.context.metric("gradient_cosine", progress.steps, found.cosine)
        tokens = self.schedule.batch_sequences * self.sequences.shape[1]
        self.context.metric("learning_rate", progress.steps, self.schedule.learning_rate(progress.steps - 1))
        self.context.metric("tokens_per_second", progress.steps, tokens / seconds)
        with self._saving_when_stopped():
            self.context.progress(progress.steps * tokens, self.schedule.steps * tokens, "tokens")
        if self.ranks.any(time.monotonic() >= self._save_at):
            self._save()

    def _pause_point(self) -> None:
        """Between micro-batches: a cancelled job or a process that is to end stops here, and nothing is lost."""
        if self.ranks.any(self._sigterm.received):
            self._save()
            self._sigterm.deliver()
        with self._saving_when_stopped():
            self.context.check()

    @contextmanager
    def _saving_when_stopped(self) -> Iterator[None]:
        """Whatever was finished is kept: masters only change between steps, so the state is whole at any check."""
        try:
            yield
        except PublisherError:
            self._save()
            raise

    def _save(self) -> None:
        started = time.monotonic()
        self.rounding.restore()
        besides = self._random | ({} if self.matching is None else self.matching.state())
        self.ranks.save(self.state_file, training_state(self.model, self.optimizer, besides, self.progress))
        ended = time.monotonic()
        self._save_at = ended + max(self.save_seconds, (ended - started) / _SAVING_SHARE)
