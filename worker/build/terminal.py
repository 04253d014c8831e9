"""A build's progress for somebody at a terminal: a bar per stage, or a line per stage where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from publisher.recipe.stages import Stage
from worker.context import StageContext
from worker.stages.pipeline import StageState


class BarContext:
    """A stage's bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def check(self) -> None:
        return None

    def progress(self, done: float, total: float, unit: str) -> None:
        self._progress.update(self._task, completed=done, total=total, note=f"{_count(done)} / {_count(total)} {unit}")

    def metric(self, name: str, step: int, value: float) -> None:
        return None

    def log(self, message: str) -> None:
        self._progress.console.print(f"  {message}", markup=False)


class QuietContext:
    """Says only what a stage logs."""

    def check(self) -> None:
        return None

    def progress(self, done: float, total: float, unit: str) -> None:
        return None

    def metric(self, name: str, step: int, value: float) -> None:
        return None

    def log(self, message: str) -> None:
        click.echo(f"  {message}", err=True)


class Bars:
    """On standard error, which is a terminal."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description:<10}"), BarColumn(), TextColumn("{task.fields[note]}"))
        self._progress = Progress(*columns, TimeElapsedColumn(), console=console)
        self._tasks: dict[Stage, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def context(self, stage: Stage) -> StageContext:
        self._tasks[stage] = self._progress.add_task(stage.value, total=None, note="")
        return BarContext(self._progress, self._tasks[stage])

    def on_stage(self, stage: Stage, state: StageState, seconds: float | None) -> None:
        if state is not StageState.STARTED:
            note = _outcome(state, seconds)
            self._progress.update(self._tasks[stage], completed=1, total=1, note=note)
            self._progress.stop_task(self._tasks[stage])


class Lines:
    """On standard error, which is a file or a pipe."""

    def context(self, stage: Stage) -> StageContext:
        return QuietContext()

    def on_stage(self, stage: Stage, state: StageState, seconds: float | None) -> None:
        if state is not StageState.STARTED:
            click.echo(f"{stage:<10} {_outcome(state, seconds)}", err=True)


@contextmanager
def shown_progress() -> Iterator[Bars | Lines]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines()
        return
    with Bars(console) as bars:
        yield bars


def _outcome(state: StageState, seconds: float | None) -> str:
    took = f"{seconds:.1f} s" if seconds is not None else ""
    return f"done in {took}" if state is StageState.FINISHED else f"there already (took {took})"


def _count(value: float) -> str:
    return f"{value:,.0f}"
