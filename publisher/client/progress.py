"""A job's events as progress bars, one per stage; plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

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

from publisher.client.rest import FINISHED, Event


class AmountColumn(ProgressColumn):
    """`12,288/16,384 tokens`; bytes in kB, MB and so on."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text("")
        unit = task.fields["unit"]
        if unit == "bytes":
            return Text(f"{decimal(int(task.completed))}/{decimal(int(task.total))}")
        return Text(f"{task.completed:,.0f}/{task.total:,.0f} {unit}")


@contextmanager
def working(console: Console, title: str) -> Iterator[None]:
    """A bar without an end, for work that cannot say how far it is."""
    with progress_bars(console) as bars:
        task = bars.add_task(title, total=None, unit="", note="")
        yield
        bars.update(task, total=1, completed=1, unit="done")


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


class JobProgress:
    """Draws events as they come; `state` and `failure` are the job's last."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = progress_bars(console)
        self.state = "queued"
        self.failure: dict[str, Any] | None = None
        self._tasks: dict[str, TaskID] = {}
        self._stage: str | None = None

    def show(self, events: Iterable[Event]) -> str:
        """Draw until the events end; answers the job's last state."""
        with self.bars:
            for event in events:
                getattr(self, f"_on_{event.kind}", self._ignore)(event.data)
        return self.state

    def _ignore(self, data: dict[str, Any]) -> None:
        """A kind of event that is newer than this client."""

    def _on_state(self, data: dict[str, Any]) -> None:
        self.state, self.failure = data["state"], data.get("failure")
        if self.state not in FINISHED and data.get("attempt", 0) > 1:
            self.console.print(f"attempt {data['attempt']}: {self.state}")

    def _on_stage(self, data: dict[str, Any]) -> None:
        self._stage = data["stage"]
        task = self._task(data["stage"])
        if data["state"] != "started":
            total = self.bars.tasks[task].total or 1
            seconds = data.get("seconds")
            note = "reused" if data["state"] == "reused" else f"{seconds:.1f} s" if seconds is not None else ""
            self.bars.update(task, total=total, completed=total, note=note)
            self.bars.stop_task(task)
            if not self.console.is_terminal:
                self.console.print(f"{data['stage']}: {data['state']} {note}")

    def _on_progress(self, data: dict[str, Any]) -> None:
        self.bars.update(self._task(data["stage"]), total=data["total"], completed=data["done"], unit=data["unit"])

    def _on_metric(self, data: dict[str, Any]) -> None:
        if self._stage and data["name"] in {"loss", "probe_loss", "direct_loss"}:
            value = "not finite" if data["value"] is None else f"{data['value']:.3f}"
            self.bars.update(self._task(self._stage), note=f"{data['name'].replace('_', ' ')} {value}")

    def _on_log(self, data: dict[str, Any]) -> None:
        self.console.print(f"  {data['message']}", highlight=False, markup=False)

    def _task(self, stage: str) -> TaskID:
        if stage not in self._tasks:
            self._tasks[stage] = self.bars.add_task(stage, total=None, unit="", note="")
        return self._tasks[stage]
