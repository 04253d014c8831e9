"""The processes that train one model: what the training loop asks of the others, answered for one alone.

Several are in rank.py. The loop is the same: each takes its share of a batch, and all of them agree on
whatever decides what comes next, since a process that goes another way leaves the others waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from worker.alignment.state import (
    TrainingState,
    is_of_this_kind,
    load_state,
    save_state,
    save_tensors,
    trained_weights,
)
from worker.training.batch_loss import Share

Log = Callable[[str], None]

#: Beside the state of one process: which step the parts of several belong to.
PARTS = "parts.json"


class Ranks(Protocol):
    """Whatever is asked here is asked by all processes at the same time."""

    @property
    def device(self) -> torch.device:
        """The one that this process computes on."""

    def seed(self, seed: int) -> None:
        """What is drawn from here on differs from process to process."""

    def loading(self) -> AbstractContextManager[torch.device]:
        """Within the block this process loads a model, to the device that it gets, and hands it to `place`."""

    def place(self, model: PreTrainedModel) -> None:
        """Bring `model`, or this process's part of it, to the device that computes. Its LM head is whole everywhere."""

    def share(self, batch: Tensor) -> Share:
        """What of `batch` this process trains on."""

    def mean(self, value: float) -> float:
        """Of all processes' `value`, to the same bits for all."""

    def any(self, flag: bool) -> bool:
        """Whether it is true in one of them."""

    def save(self, file: Path, state: TrainingState) -> None:
        """So that whoever is killed leaves this state or the one before, whole."""

    def load(self, file: Path, log: Log) -> TrainingState | None:
        """What was saved, with this process's part of the tensors; None if there is nothing to go on from."""

    def save_weights(self, file: Path, model: PreTrainedModel) -> None:
        """What is trained, whole, in one file (`trained_weights`); it is there for all when this returns."""


@dataclass(frozen=True)
class Alone:
    """One process, with all of the model on `device`."""

    device: torch.device

    def seed(self, seed: int) -> None:
        """It is seeded, and goes on from what loading drew."""

    @contextmanager
    def loading(self) -> Iterator[torch.device]:
        yield self.device

    def place(self, model: PreTrainedModel) -> None:
        """It is where it was loaded."""

    def share(self, batch: Tensor) -> Share:
        return Share(batch, batch, 1)

    def mean(self, value: float) -> float:
        return value

    def any(self, flag: bool) -> bool:
        return flag

    def save(self, file: Path, state: TrainingState) -> None:
        save_state(file, state)

    def load(self, file: Path, log: Log) -> TrainingState | None:
        state = load_state(file)
        if state is None and file.with_name(PARTS).exists():
            log("The training state that is there is of several devices: alignment starts over on one.")
        if state is not None and not is_of_this_kind(self.device, state):
            log("The training state that is there is of another kind of device: alignment starts over.")
            return None
        return state

    def save_weights(self, file: Path, model: PreTrainedModel) -> None:
        save_tensors(file, trained_weights(model))
