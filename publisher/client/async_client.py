"""The service from Python, awaiting each answer: publisher.client.client for event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import httpx

from publisher.client import calls
from publisher.client.call import Call, Page, SendsAsync
from publisher.client.download import Download, Progress
from publisher.client.events import Event, EventLines, Following, OnAway
from publisher.client.exchange import RETRIES, STREAM_TIMEOUT, TIMEOUT, Exchange, Retries, headers, problem
from publisher.client.types import EventKind
from publisher.errors import InfrastructureFault

P = ParamSpec("P")
T = TypeVar("T")


class AsyncClient(calls.Operations, SendsAsync):
    """As Client, with methods to await, and asynchronous iterators."""

    def __init__(self, url: str, key: str, *, retries: Retries = RETRIES) -> None:
        self.url = url.rstrip("/")
        self._retries = retries
        self._http = httpx.AsyncClient(base_url=self.url, headers=headers(key), timeout=TIMEOUT, follow_redirects=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """As Client.send."""
        exchange = Exchange(self.url, call, self._retries)
        while True:
            try:
                response = await self._http.request(**exchange.call.request())
            except httpx.TransportError as error:
                pause: float | None = exchange.failed(error)
            else:
                pause = exchange.answered(response)
            if pause is None:
                return exchange.answer(response)
            await asyncio.sleep(pause)

    async def every(self, build: Callable[P, Call[Page[T]]], *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        """The items of all pages."""
        call = build(*args, **kwargs)
        while True:
            page = await self.send(call)
            for item in page["items"]:
                yield item
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
    ) -> AsyncIterator[Event]:
        """As Client.follow_job."""
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
    ) -> AsyncIterator[Event]:
        """As Client.follow_all."""
        following = Following(self.url, after, patience, ends_with_job=False)
        return self._follow(
            following, pause, lambda last: calls.follow_all(kind=kind, all_of=all_of, last_event_id=last)
        )

    async def _follow(
        self, following: Following, pause: float, build: Callable[[int | None], Call[None]]
    ) -> AsyncIterator[Event]:
        while not following.has_ended:
            why: Exception | None = None
            try:
                async for event in self._events(build(following.after)):
                    following.seen(event)
                    yield event
                    if following.has_ended:
                        return
            except (httpx.TransportError, InfrastructureFault) as error:
                why = error
            following.broken(why)
            await asyncio.sleep(pause)

    async def _events(self, call: Call[None]) -> AsyncIterator[Event]:
        lines = EventLines()
        async with self._http.stream(**call.request(), timeout=STREAM_TIMEOUT) as response:
            if response.is_error:
                await response.aread()
                raise problem(response)
            async for line in response.aiter_lines():
                if (event := lines.take(line)) is not None:
                    yield event

    async def read_variant_file(self, id: str, path: str, target: Path, *, progress: Progress | None = None) -> None:
        """As Client.read_variant_file."""
        call = calls.read_variant_file(id, path)
        exchange = Exchange(self.url, call, self._retries)
        with Download(target, progress) as download:
            while True:
                try:
                    return await self._download(call, download)
                except httpx.TransportError as error:
                    await asyncio.sleep(exchange.failed(error))

    async def _download(self, call: Call[None], download: Download) -> None:
        request = call.request()
        request["headers"] |= download.headers
        async with self._http.stream(**request) as response:
            if response.is_error:
                await response.aread()
            download.begins(response)
            async for piece in response.aiter_bytes():
                download.takes(piece)
