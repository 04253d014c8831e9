"""The REST API from Python: a thin client that speaks in problem details and survives a restarting service."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx

from publisher.errors import InfrastructureFault, PublisherError, RequestFault
from publisher.store.states import JobState

FINISHED = frozenset(state.value for state in JobState if state.finished)


@dataclass(frozen=True)
class Event:
    """One Server-Sent Event of a job; `id` counts from 1."""

    id: int
    kind: str
    data: dict[str, Any]


class ServiceClient:
    """Calls `url` with an API key. Refusals raise RequestFault, an unreachable service InfrastructureFault."""

    def __init__(self, url: str, key: str, *, timeout: float = 60) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=timeout, follow_redirects=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int) -> Any:
        return self._call("GET", path, params=query)

    def post(self, path: str, body: dict[str, Any] | None = None, *, idempotency_key: str | None = None) -> Any:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._call("POST", path, json=body, headers=headers)

    def _call(self, method: str, path: str, **how: Any) -> Any:
        try:
            response = self._http.request(method, path, **how)
        except httpx.TransportError as error:
            raise InfrastructureFault(
                f"{self.url} does not answer ({error}).", way_out="Is the service running? `publisher up` starts one."
            ) from error
        if response.is_error:
            raise _problem(response)
        return response.json() if response.content else None

    def follow(
        self,
        job_id: str,
        *,
        after: int = 0,
        patience: float = 60,
        pause: float = 1,
        on_away: Callable[[str], None] = lambda why: None,
    ) -> Iterator[Event]:
        """Every event of a job from number `after` + 1 to its end, each once, across reconnects.

        A service that restarts breaks streams off, ends them early, or leaves the answer to a proxy: it is asked again
        after `pause` seconds, and `on_away` hears why, once until it is back. Gives up with InfrastructureFault when no
        event has come for `patience` seconds since.
        """
        lost_at: float | None = None
        while True:
            why = "it ends the stream before the job has ended"
            try:
                for event in self._stream(job_id, after):
                    lost_at, after = None, event.id
                    yield event
                    if event.kind == "state" and event.data.get("state") in FINISHED:
                        return
            except (httpx.TransportError, InfrastructureFault) as error:
                why = str(error).rstrip(".")
            if lost_at is None:
                lost_at = time.monotonic()
                on_away(why)
            if time.monotonic() - lost_at > patience:
                raise InfrastructureFault(f"{self.url} is away since {patience:.0f} seconds: {why}.")
            time.sleep(pause)

    def _stream(self, job_id: str, after: int) -> Iterator[Event]:
        headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
        with self._http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers, timeout=90) as response:
            if response.is_error:
                response.read()
                raise _problem(response)
            yield from parse_events(response.iter_lines())


def parse_events(lines: Iterator[str]) -> Iterator[Event]:
    """Server-Sent Events from their lines (WHATWG HTML, section 9.2); comments and unnamed events are skipped."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if not line:
            if {"id", "event", "data"} <= fields.keys():
                yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value


def _problem(response: httpx.Response) -> PublisherError:
    fault: type[PublisherError] = RequestFault if response.status_code < 500 else InfrastructureFault
    try:
        problem = response.json()
    except json.JSONDecodeError:
        problem = None
    if not isinstance(problem, dict):  # of a proxy, not of the service
        return fault(f"{response.request.method} {response.url.path}: HTTP {response.status_code}.")
    errors = [f"{entry['field']}: {entry['message']}" for entry in problem.get("errors", [])]
    message = "; ".join(errors) or str(problem.get("detail") or problem.get("title"))
    if response.status_code == HTTPStatus.UNAUTHORIZED:  # perhaps another service's key
        message = f"{response.url.scheme}://{response.url.netloc.decode()}: {message}"
    return fault(message)
