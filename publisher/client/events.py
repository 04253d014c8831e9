"""Events of jobs as they come over a connection, and over as many connections as it takes. Nothing here sends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from publisher.errors import InfrastructureFault
from publisher.store.states import JobState

OnAway = Callable[[str], None]

FINISHED = frozenset(state.value for state in JobState if state.finished)


@dataclass(frozen=True)
class Event:
    """One Server-Sent Event; `id` counts from 1 within a job."""

    id: int
    kind: str
    data: dict[str, Any]

    @property
    def ends_job(self) -> bool:
        return self.kind == "state" and self.data.get("state") in FINISHED


class EventLines:
    """Makes events of lines (WHATWG HTML, section 9.2); comments and unnamed events are skipped."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def take(self, line: str) -> Event | None:
        """The event that this line completes."""
        if line.startswith(":"):
            return None
        if not line:
            fields, self._fields = self._fields, {}
            whole = {"id", "event", "data"} <= fields.keys()
            return Event(int(fields["id"]), fields["event"], json.loads(fields["data"])) if whole else None
        name, _, value = line.partition(":")
        value, before = value.removeprefix(" "), self._fields
        before[name] = f"{before[name]}\n{value}" if name == "data" and name in before else value
        return None


def parse_events(lines: Iterable[str]) -> Iterator[Event]:
    """All events of these lines."""
    taken = EventLines()
    yield from (event for line in lines if (event := taken.take(line)) is not None)


class Following:
    """Where a stream is that is followed over reconnects, each event once.

    A service that restarts breaks streams off, ends them early, or leaves the answer to a proxy: it is asked again.
    `on_away` hears why, once until it is back. Gives up with InfrastructureFault when no event has come for `patience`
    seconds since.
    """

    def __init__(
        self, url: str, after: int | None, patience: float, on_away: OnAway = lambda why: None, *, ends_with_job: bool
    ) -> None:
        self.after = after
        self.has_ended = False
        self._url, self._patience, self._ends_with_job = url, patience, ends_with_job
        self._on_away = on_away
        self._lost_at: float | None = None

    def seen(self, event: Event) -> None:
        self._lost_at, self.after = None, event.id
        self.has_ended = self._ends_with_job and event.ends_job

    def broken(self, why: Exception | None) -> None:
        """The stream is over before its time; None: it was ended by the service."""
        said = "it ends the stream before the job has ended" if why is None else str(why).rstrip(".")
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            self._on_away(said)
        if time.monotonic() - self._lost_at > self._patience:
            raise InfrastructureFault(f"{self._url} is away since {self._patience:.0f} seconds: {said}.")
