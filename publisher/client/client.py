"""The service from Python, waiting for each answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import httpx

from publisher.client import calls
from publisher.client.call import Call, Page, Sends
from publisher.client.download import Download, Progress
from publisher.client.events import Event, EventLines, Following, OnAway
from publisher.client.exchange import RETRIES, STREAM_TIMEOUT, TIMEOUT, Exchange, Retries, headers, problem
from publisher.client.types import EventKind
from publisher.errors import InfrastructureFault

P = ParamSpec("P")
T = TypeVar("T")


class Client(calls.Operations, Sends):
    """Every operation of the service at `url` as a method, called with an API key.

    Refusals raise RequestFault, a service that is away InfrastructureFault. What may be repeated is, with pauses:
    reads, deletes, and what carries an Idempotency-Key, which variants and sweeps get where none is given.
    """

    def __init__(self, url: str, key: str, *, retries: Retries = RETRIES) -> None:
        self.url, self.key = url.rstrip("/"), key
        self._retries = retries
        self._http = httpx.Client(base_url=self.url, headers=headers(key), timeout=TIMEOUT, follow_redirects=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """A call of publisher.client.calls, over as many tries as it may have."""
        exchange = Exchange(self.url, call, self._retries)
        while True:
            try:
                response = self._http.request(**exchange.call.request())
            except httpx.TransportError as error:
                pause: float | None = exchange.failed(error)
            else:
                pause = exchange.answered(response)
            if pause is None:
                return exchange.answer(response)
            time.sleep(pause)

    def get(self, path: str, **query: str | int) -> Any:
        """What a service answers that is newer than this client."""
        return self.send(Call[Any]("GET", path, query))

    def post(self, path: str, body: dict[str, Any] | None = None, *, idempotency_key: str | None = None) -> Any:
        """What a service takes that is newer than this client."""
        return self.send(Call[Any]("POST", path, headers={"Idempotency-Key": idempotency_key}, body=body))

    def every(self, build: Callable[P, Call[Page[T]]], *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        """The items of all pages: `client.every(calls.list_jobs, state=["failed"])`."""
        call = build(*args, **kwargs)
        while True:
            page = self.send(call)
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            call = call.after(page["next_cursor"])

    def follow_job(
        self,
        id: str,
        *,
        after: int = 0,
        patience: float = 60,
        pause: float = 1,
        on_away: OnAway = lambda why: None,
    ) -> Iterator[Event]:
        """Every event of a job from number `after` + 1 to its end, each once, across reconnects (Following)."""
        following = Following(self.url, after, patience, on_away, ends_with_job=True)
        return self._follow(following, pause, lambda last: calls.follow_job(id, last_event_id=last))

    def follow_all(
        self,
        *,
        kind: Sequence[EventKind] | None = None,
        all_of: Sequence[str] | None = None,
        after: int | None = None,
        patience: float = 60,
        pause: float = 1,
    ) -> Iterator[Event]:
        """Every event of the tenant's jobs after number `after`, or from now on, without end."""
        following = Following(self.url, after, patience, ends_with_job=False)
        return self._follow(
            following, pause, lambda last: calls.follow_all(kind=kind, all_of=all_of, last_event_id=last)
        )

    def _follow(self, following: Following, pause: float, build: Callable[[int | None], Call[None]]) -> Iterator[Event]:
        while not following.has_ended:
            why: Exception | None = None
            try:
                for event in self._events(build(following.after)):
                    following.seen(event)
                    yield event
                    if following.has_ended:
                        return
            except (httpx.TransportError, InfrastructureFault) as error:
                why = error
            following.broken(why)
            time.sleep(pause)

    def _events(self, call: Call[None]) -> Iterator[Event]:
        lines = EventLines()
        with self._http.stream(**call.request(), timeout=STREAM_TIMEOUT) as response:
            if response.is_error:
                response.read()
                raise problem(response)
            yield from (event for line in response.iter_lines() if (event := lines.take(line)) is not None)

    def read_variant_file(self, id: str, path: str, target: Path, *, progress: Progress | None = None) -> None:
        """Fetch a file of a published checkpoint into `target`; a connection that breaks is taken up where it was."""
        call = calls.read_variant_file(id, path)
        exchange = Exchange(self.url, call, self._retries)
        with Download(target, progress) as download:
            while True:
                try:
                    return self._download(call, download)
                except httpx.TransportError as error:
                    time.sleep(exchange.failed(error))

    def _download(self, call: Call[None], download: Download) -> None:
        request = call.request()
        request["headers"] |= download.headers
        with self._http.stream(**request) as response:
            if response.is_error:
                response.read()
            download.begins(response)
            for piece in response.iter_bytes():
                download.takes(piece)
