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

import torch
from torch import Tensor
from transformers import PreTrainedModel

from publisher.errors import PublisherError, RequestFault
from worker.alignment.batch_loss import BatchLoss, accumulate_gradients
from worker.alignment.schedule import Schedule
from worker.alignment.state import (
    TrainingProgress,
    TrainingState,
    load_state,
    random_state,
    restore_random_state,
    restore_training_tensors,
    save_state,
    training_tensors,
)
from worker.alignment.termination import DeferredSigterm
from worker.measure import current_peak
from worker.stages.context import StageContext

_GRADIENT_NORM = 1.0
_BETAS = (0.9, 0.95)
#: Saving may take this share of the time; a slow disk makes it rarer.
_SAVING_SHARE = 0.05


class Training:
    """One alignment of `model`, whose parameters that require a gradient are trained in place.

    `sequences` is int32 (steps * batch_sequences, length): step i trains on the i-th batch of rows. The state is
    saved to `state_file` every `save_seconds`, and when the job is cancelled or the process is asked to end.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        batch_loss: BatchLoss,
        sequences: Tensor,
        schedule: Schedule,
        context: StageContext,
        *,
        state_file: Path,
        save_seconds: float = 30.0,
    ) -> None:
        self.model, self.batch_loss, self.sequences, self.schedule = model, batch_loss, sequences, schedule
        self.context, self.state_file, self.save_seconds = context, state_file, save_seconds
        self.device = model.device
        self.progress = TrainingProgress()
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=schedule.peak, betas=_BETAS, weight_decay=0.0, fused=True)

    def run(self) -> TrainingProgress:
        """Train the steps that are missing.

        Raises RequestFault when the loss is not a number any more, and what the context raises when it is checked.
        """
        self._resume()
        self.model.train()
        self._random = random_state(self.device)
        self._save_at = time.monotonic() + self.save_seconds
        with DeferredSigterm() as self._sigterm:
            while self.progress.steps < self.schedule.steps:
                self._step()
        self.model.eval()
        return self.progress

    def _resume(self) -> None:
        state = load_state(self.state_file)
        if state is None:
            return
        restore_training_tensors(self.model, self.optimizer, state.tensors)
        restore_random_state(self.device, state.tensors)
        self.progress = state.progress
        self.context.log(f"Alignment goes on after step {self.progress.steps} of {self.schedule.steps}.")

    def _step(self) -> None:
        started, step = time.perf_counter(), self.progress.steps
        self._random = random_state(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        loss = accumulate_gradients(self.model, self.batch_loss, self._batch(step), self._pause_point)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), _GRADIENT_NORM)
        _refuse_divergence(step, loss, float(norm))
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate(step)
        self.optimizer.step()
        self._random = random_state(self.device)
        self._finish(loss, time.perf_counter() - started)

    def _batch(self, step: int) -> Tensor:
        size = self.schedule.batch_sequences
        return self.sequences[step * size : (step + 1) * size].to(self.device)

    def _finish(self, loss: float, seconds: float) -> None:
        """Book a step and tell about it."""
        self.progress.losses.append(loss)
        self.progress.seconds += seconds
        self.progress.peak_memory_bytes = max(self.progress.peak_memory_bytes, current_peak(self.device))
        step, tokens = self.progress.steps, self.schedule.batch_sequences * self.sequences.shape[1]
        self.context.metric("loss", step, loss)
        self.context.metric("learning_rate", step, self.schedule.learning_rate(step - 1))
        self.context.metric("tokens_per_second", step, tokens / seconds)
        with self._saving_when_stopped():
            self.context.progress(step * tokens, self.schedule.steps * tokens, "tokens")
        if time.monotonic() >= self._save_at:
            self._save()

    def _pause_point(self) -> None:
        """Between micro-batches: a cancelled job or a process that is to end stops here, and nothing is lost."""
        if self._sigterm.received:
            self._save()
            self._sigterm.deliver()
        with self._saving_when_stopped():
            self.context.check()

    @contextmanager
    def _saving_when_stopped(self) -> Iterator[None]:
        """Whatever was finished is kept: weights only change between steps, so the state is whole at any check."""
        try:
            yield
        except PublisherError:
            self._save()
            raise

    def _save(self) -> None:
        started = time.monotonic()
        tensors = training_tensors(self.model, self.optimizer) | self._random
        save_state(self.state_file, TrainingState(tensors, self.progress))
        ended = time.monotonic()
        self._save_at = ended + max(self.save_seconds, (ended - started) / _SAVING_SHARE)


def _refuse_divergence(step: int, loss: float, norm: float) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise RequestFault(
            f"alignment diverged at step {step + 1}: loss {loss}, gradient norm {norm}.",
            field="recipe.alignment.learning_rate",
            way_out="Lower alignment.learning_rate or lengthen the warm-up.",
        )
