"""Progress of work that takes a while: bars at a terminal; where there is none, a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

#: no more than one line about a piece of work within this time
LINE_SECONDS = 30.0


class Shown(Protocol):
    """Shows pieces of work by their names. `at`: seconds, by whatever clock the work goes."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def started(self, name: str, at: float) -> None: ...

    def progress(self, name: str, done: float, total: float | None, unit: str, at: float) -> None: ...

    def note(self, name: str, text: str) -> None:
        """What else is to be known of it now, in place of the last note."""

    def ended(self, name: str, outcome: str) -> None: ...

    def say(self, text: str) -> None: ...


def shown_on(console: Console) -> Shown:
    """To be entered while the work goes on."""
    return Bars(console) if console.is_terminal else Lines(console)


@contextmanager
def working(console: Console, title: str) -> Iterator[None]:
    """For work that cannot say how far it is."""
    with shown_on(console) as shown:
        shown.started(title, time.monotonic())
        yield
        shown.ended(title, "done")


@contextmanager
def bytes_shown(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """On standard error: hears how many bytes are done, and of how many (None: nobody knows)."""
    with shown_on(Console(stderr=True)) as shown:
        shown.started(title, time.monotonic())
        yield lambda done, total: shown.progress(title, done, total, "bytes", time.monotonic())


@contextmanager
def bytes_counted(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """As `bytes_shown`, for who tells how many more there are."""
    done = 0
    with bytes_shown(title) as show:

        def count(more: int) -> None:
            nonlocal done
            done += more
            show(done, total)

        yield count


def loss_note(name: str, step: int, value: float | None) -> str | None:
    """A metric in a few words, if it is one that people watch; `value`: None is one that is no number."""
    if name not in {"loss", "probe_loss", "direct_loss"}:
        return None
    return f"step {step}, {name.replace('_', ' ')} {'not finite' if value is None else f'{value:.3f}'}"


class AmountColumn(ProgressColumn):
    """`12,288/16,384 tokens`; bytes in kB, MB and so on."""

    def render(self, task: Task) -> Text:
        return Text(_amount(task.completed, task.total, task.fields["unit"]) if task.fields["unit"] else "")


def _amount(done: float, total: float | None, unit: str) -> str:
    if unit.split(" ", maxsplit=1)[0] == "bytes":
        of = "" if total is None else f"/{decimal(int(total))}"
        return decimal(int(done)) + of + unit.removeprefix("bytes")
    if total is None:
        return f"{done:,.0f} {unit}"
    return f"{done:,.0f}/{total:,.0f} {unit}".rstrip()


def progress_bars(console: Console) -> Progress:
    """Bars that show amount, unit and time passed."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=24),
        AmountColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


class Bars:
    """One for each piece of work."""

    def __init__(self, console: Console) -> None:
        self._bars = progress_bars(console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def started(self, name: str, at: float) -> None:
        self._task(name)

    def progress(self, name: str, done: float, total: float | None, unit: str, at: float) -> None:
        self._bars.update(self._task(name), completed=done, total=total, unit=unit)

    def note(self, name: str, text: str) -> None:
        self._bars.update(self._task(name), note=text)

    def ended(self, name: str, outcome: str) -> None:
        task = self._task(name)
        total = self._bars.tasks[task].total or 1
        self._bars.update(task, total=total, completed=total, note=outcome)
        self._bars.stop_task(task)

    def say(self, text: str) -> None:
        self._bars.console.print(text, highlight=False, markup=False)

    def _task(self, name: str) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=None, unit="", note="")
        return self._tasks[name]


class Lines:
    """For logs: a line about a piece of work every LINE_SECONDS of its clock, and one when it has ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._paces: dict[str, _Pace] = {}
        self._notes: dict[str, str] = {}
        self._written_at: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None

    def started(self, name: str, at: float) -> None:
        self._written_at[name] = at

    def progress(self, name: str, done: float, total: float | None, unit: str, at: float) -> None:
        pace = self._paces.get(name)
        if pace is None or not pace.goes_on(done, total, unit):
            pace = self._paces[name] = _Pace(done, total, unit, at)
        if at - self._written_at.setdefault(name, at) < LINE_SECONDS:
            return
        self._written_at[name] = at
        parts = (_amount(done, total, unit), self._notes.get(name), pace.left(done, at))
        self._write(name, ", ".join(part for part in parts if part))

    def note(self, name: str, text: str) -> None:
        self._notes[name] = text

    def ended(self, name: str, outcome: str) -> None:
        self._notes.pop(name, None)
        self._write(name, outcome)

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _write(self, name: str, text: str) -> None:
        self.say(f"{name:<10} {text}")


@dataclass(frozen=True)
class _Pace:
    """From where on something is counted: a job that goes on in the middle has been there for no time."""

    done: float
    total: float | None
    unit: str
    at: float

    def goes_on(self, done: float, total: float | None, unit: str) -> bool:
        return (total, unit) == (self.total, self.unit) and done >= self.done

    def left(self, done: float, at: float) -> str | None:
        """`12:05 left`, if it goes on as since the start."""
        if self.total is None or done <= self.done or at <= self.at:
            return None
        minutes, seconds = divmod(round((self.total - done) * (at - self.at) / (done - self.done)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d} left" if hours else f"{minutes}:{seconds:02d} left"
