"""Somebody who watches a job from its first event, loses the connection again and again, and notes what is wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import httpx

from publisher.client.events import Event, parse_events
from publisher.store.states import JobState

_PAUSE_SECONDS = 0.2
#: longer than the pause between two comments of a silent stream
_READ_SECONDS = 20.0


class Recorder:
    """Follows a job's stream in a thread until `stop`. `on_event` hears each event once, in the thread."""

    def __init__(self, url: str, key: str, job_id: str, chance: Random, on_event: Callable[[Event], None]) -> None:
        self.events: list[Event] = []
        self.problems: list[str] = []
        self.connections = 0
        self._url = f"{url}/v1/jobs/{job_id}/events"
        self._key = key
        self._chance = chance
        self._on_event = on_event
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"recorder of {job_id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(_READ_SECONDS + 1)

    @property
    def last(self) -> int:
        """Number of the last event; 0 before the first."""
        return self.events[-1].id if self.events else 0

    @property
    def state(self) -> JobState | None:
        """As the stream tells."""
        told = [event.data["state"] for event in self.events if event.kind == "state"]
        return JobState(told[-1]) if told else None

    def _run(self) -> None:
        with httpx.Client(timeout=_READ_SECONDS) as http:
            while not self._over.is_set():
                with suppress(httpx.TransportError):  # killed, stopped or restarting: it is asked again
                    self._listen(http)
                self._over.wait(_PAUSE_SECONDS)

    def _listen(self, http: httpx.Client) -> None:
        """One connection: until its end, or until we hang up after a few events."""
        number, params, headers = self._chance.choice((1, 2, 5, 1000)), {}, {"Authorization": f"Bearer {self._key}"}
        if self._chance.random() < 0.5:
            headers["Last-Event-ID"] = str(self.last)
        else:
            params["after"] = str(self.last)
        with http.stream("GET", self._url, headers=headers, params=params) as response:
            self.connections += 1
            if response.status_code != 200:
                return
            for event in parse_events(response.iter_lines()):
                self._note(event)
                number -= 1
                if number == 0 or self._over.is_set():
                    return

    def _note(self, event: Event) -> None:
        if event.id != self.last + 1:
            self.problems.append(f"event {event.id} came after {self.last}")
        self.events.append(event)
        self._on_event(event)


def replayed(url: str, key: str, job_id: str) -> list[Event]:
    """A finished job's whole stream in one go."""
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.stream("GET", f"{url}/v1/jobs/{job_id}/events", headers=headers, timeout=_READ_SECONDS) as response:
        response.raise_for_status()
        return list(parse_events(response.iter_lines()))


def without_times(event: Event) -> dict[str, Any]:
    return {"id": event.id, "kind": event.kind, **event.data}


def wait(reached: Callable[[], bool], seconds: float) -> bool:
    """Whether it was reached in time."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
