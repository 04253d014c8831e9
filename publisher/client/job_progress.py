"""A job's events, shown as they come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console

from publisher.client.events import FINISHED, Event
from publisher.client.progress import Shown, loss_note, shown_on
from publisher.store.states import JobState


class JobProgress:
    """Shows events as they come; `state` and `failure` are the job's last."""

    def __init__(self, console: Console) -> None:
        self.state = "queued"
        self.failure: dict[str, Any] | None = None
        self._shown: Shown = shown_on(console)
        self._stage: str | None = None

    def show(self, events: Iterable[Event]) -> str:
        """Until the events end; answers the job's last state."""
        with self._shown:
            for event in events:
                getattr(self, f"_on_{event.kind}", self._ignore)(event.data)
        return self.state

    def _ignore(self, data: dict[str, Any]) -> None:
        """A kind of event that is newer than this client."""

    def _on_state(self, data: dict[str, Any]) -> None:
        self.state, self.failure = data["state"], data.get("failure")
        if self.state in {JobState.PAUSING, JobState.PAUSED}:
            self._shown.say(f"{self.state}; it goes on when somebody resumes it")
        elif self.state not in FINISHED and data.get("attempt", 0) > 1:
            self._shown.say(f"attempt {data['attempt']}: {self.state}")
        if waiting := data.get("waiting"):
            self._shown.say(f"waiting: {waiting['message']}")

    def _on_stage(self, data: dict[str, Any]) -> None:
        self._stage = data["stage"]
        if data["state"] == "started":
            self._shown.started(data["stage"], data["at"])
            return
        seconds = data.get("seconds")
        took = f" in {seconds:.1f} s" if seconds is not None else ""
        self._shown.ended(data["stage"], "reused" if data["state"] == "reused" else f"{data['state']}{took}")

    def _on_progress(self, data: dict[str, Any]) -> None:
        self._shown.progress(data["stage"], data["done"], data["total"], data["unit"], data["at"])

    def _on_metric(self, data: dict[str, Any]) -> None:
        note = loss_note(data["name"], data["step"], data["value"])
        if self._stage and note:
            self._shown.note(self._stage, note)

    def _on_log(self, data: dict[str, Any]) -> None:
        self._shown.say(f"  {data['message']}")
