"""A build's progress on standard error: a bar per stage at a terminal; where there is none, lines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from publisher.client.progress import Shown, loss_note, shown_on
from publisher.recipe.stages import Stage
from worker.context import StageContext
from worker.stages.pipeline import StageState


class ShownContext:
    """What a stage reports, shown."""

    def __init__(self, shown: Shown, stage: Stage) -> None:
        self._shown, self._stage = shown, stage.value

    def check(self) -> None:
        return None

    def progress(self, done: float, total: float, unit: str) -> None:
        self._shown.progress(self._stage, done, total, unit, time.monotonic())

    def metric(self, name: str, step: int, value: float) -> None:
        note = loss_note(name, step, value)
        if note:
            self._shown.note(self._stage, note)

    def log(self, message: str) -> None:
        self._shown.say(f"  {message}")


class ShownBuild:
    """All of its stages."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    def context(self, stage: Stage) -> StageContext:
        self._shown.started(stage.value, time.monotonic())
        return ShownContext(self._shown, stage)

    def on_stage(self, stage: Stage, state: StageState, seconds: float | None) -> None:
        if state is not StageState.STARTED:
            self._shown.ended(stage.value, _outcome(state, seconds))


@contextmanager
def shown_progress() -> Iterator[ShownBuild]:
    with shown_on(Console(stderr=True)) as shown:
        yield ShownBuild(shown)


def _outcome(state: StageState, seconds: float | None) -> str:
    took = f"{seconds:.1f} s" if seconds is not None else ""
    return f"done in {took}" if state is StageState.FINISHED else f"there already (took {took})"
