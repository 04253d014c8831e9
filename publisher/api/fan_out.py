"""Events to many listeners: one reader a process asks the database, and whoever listens gets bytes from memory.

What a round asks is a few statements, however many listen: where each feed that somebody listens to is, the events that
are new, and, now and then, whose key still counts. A listener that starts in the past or is slow reads the database by
itself, until it has caught up with what is in memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from operator import attrgetter
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from publisher.api.authentication import Caller, still_allowed
from publisher.api.event_sources import SOURCES, Entry, Position, Source
from publisher.api.outside import TooManyAtOnce
from publisher.store.database import Database

_logger = logging.getLogger(__name__)

#: how late an event may reach a listener, in seconds
INTERVAL = 0.25
#: how late a revoked key is noticed, in seconds
ACCESS_INTERVAL = 1.0
#: seconds of silence after which a comment keeps proxies from closing the connection
KEEP_ALIVE = 15.0
#: threads for all listeners that read by themselves together, apart from those that serve requests
THREADS = 4
#: events of one feed read at once
BATCH = 500
#: feeds read in one statement
FEEDS = 50
#: bytes of one feed kept in memory, at least its last event
KEPT_BYTES = 256 * 1024
#: how long a browser waits before it connects again, in milliseconds
RECONNECT = 1000

Asked = TypeVar("Asked")
Wanted = Callable[[Entry], bool]


def everything(entry: Entry) -> bool:
    return True


@dataclass(eq=False)
class Listener:
    """`number` is that of the last event that it has, `ended` when it may not have more."""

    caller: Caller
    feed: Feed
    number: int
    ended: bool = False
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_over(self) -> bool:
        return self.ended or self.feed.has_nothing_after(self.number)

    def end(self) -> None:
        self.ended = True
        self.woken.set()

    async def wait(self, seconds: float) -> bool:
        """Until something happened; False if nothing did within `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        return self.woken.is_set()


class Feed:
    """In memory are all events with a number above `start` and up to `last`; both are unknown (-1) at first."""

    def __init__(self, source: Source, id: str) -> None:
        self.source, self.id = source, id
        self.listeners: set[Listener] = set()
        self.start = self.last = -1
        self._ended = False
        self._entries: deque[Entry] = deque()
        self._bytes = 0

    def has_nothing_after(self, number: int) -> bool:
        return self._ended and number >= self.last

    def since(self, number: int) -> list[Entry] | None:
        """The events after `number`; None if memory does not go back that far."""
        if self.start < 0 or number < self.start:
            return None
        return list(takewhile(lambda entry: entry.number > number, reversed(self._entries)))[::-1]

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._entries.append(entry)
            self._bytes += len(entry.sent)
            self.last = entry.number
        while self._bytes > KEPT_BYTES and len(self._entries) > 1:
            dropped = self._entries.popleft()
            self._bytes -= len(dropped.sent)
            self.start = dropped.number
        self.wake()

    def begin(self, position: Position | None) -> None:
        if self.start < 0 and position is not None:
            self.start = self.last = position.last
            self.wake()

    def settle(self, position: Position | None) -> None:
        """Everything up to `position` is here; None: the feed is gone."""
        self._ended = position is None or (position.ended and self.last <= position.last)
        if position is not None:
            # events of what was deleted are missing
            self.last = max(self.last, position.last)
        if self._ended:
            self.wake()

    def wake(self) -> None:
        for listener in self.listeners:
            listener.woken.set()


class FanOut:
    """Lives in the event loop of one API process, from `start` to `stop`; `round` is what it does again and again."""

    def __init__(self, database: Database, per_tenant: int) -> None:
        self._database = database
        self._per_tenant, self._open = per_tenant, Counter[str]()
        self._feeds: dict[tuple[Source, str], Feed] = {}
        self._task: asyncio.Task[None] | None = None
        self._own_thread, self._threads = CapacityLimiter(1), CapacityLimiter(THREADS)
        self._access_checked_at = 0.0

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        self.end_streams()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @property
    def listeners(self) -> list[Listener]:
        return [listener for feed in self._feeds.values() for listener in feed.listeners]

    def end_streams(self) -> None:
        """Every stream that is open now ends as soon as it can; listeners may come again."""
        for listener in self.listeners:
            listener.end()

    def refuse_crowd(self, tenant_id: str) -> None:
        """Raises TooManyAtOnce for a tenant with as many streams as it may have. Those that come at the same moment
        are let in together: it bounds what one tenant costs, and need not be exact."""
        if self._open[tenant_id] >= self._per_tenant:
            raise TooManyAtOnce(
                f"{self._per_tenant} event streams of your tenant are open, as many as there may be.",
                way_out="Close some: /v1/events tells of all jobs in one stream.",
            )

    async def follow(
        self, caller: Caller, source: Source, id: str, number: int, wanted: Wanted = everything
    ) -> AsyncGenerator[bytes]:
        """The `wanted` events of a feed after `number` as Server-Sent Events; ends with the feed or the access."""
        with self._listening(caller, source, id, number) as listener:
            # the id without an event: who is cut off before the first event goes on from here, too
            yield b"retry: %d\nid: %d\n\n" % (RECONNECT, number)
            silent_since = time.monotonic()
            while not listener.is_over:
                listener.woken.clear()
                entries = await self._next(listener)
                sent = b"".join(entry.sent for entry in entries if wanted(entry))
                if not entries:
                    await listener.wait(max(0.0, silent_since + KEEP_ALIVE - time.monotonic()))
                # events that the listener does not want are silence, too
                if not sent and time.monotonic() - silent_since >= KEEP_ALIVE:
                    sent = b": still here\nid: %d\n\n" % listener.number
                if sent:
                    yield sent
                    silent_since = time.monotonic()

    @contextmanager
    def _listening(self, caller: Caller, source: Source, id: str, number: int) -> Iterator[Listener]:
        """While inside, the feed is read."""
        feed = self._feeds.setdefault((source, id), Feed(source, id))
        listener = Listener(caller, feed, number)
        feed.listeners.add(listener)
        self._open[caller.tenant_id] += 1
        try:
            yield listener
        finally:
            self._open[caller.tenant_id] -= 1
            feed.listeners.remove(listener)
            if not feed.listeners:
                del self._feeds[source, id]

    async def _next(self, listener: Listener) -> Sequence[Entry]:
        """What comes after the listener's number, from memory or, if it is behind that, from the database."""
        entries = listener.feed.since(listener.number)
        if entries is not None:
            listener.number = max(listener.number, listener.feed.last)
            return entries
        try:
            entries, listener.number, is_last = await self._ask(
                self._threads, _catch_up, listener.feed, listener.number
            )
            if is_last:
                listener.end()
        except SQLAlchemyError as error:
            _logger.warning("an event stream waits for the database: %s", error)
            await asyncio.sleep(INTERVAL)
        return entries or []

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self.round()
            except SQLAlchemyError as error:
                _logger.warning("event streams wait for the database: %s", error)

    async def round(self) -> None:
        """Look once at everything that somebody listens to. Raises SQLAlchemyError while the database is away."""
        if self._feeds and time.monotonic() - self._access_checked_at > ACCESS_INTERVAL:
            await self._end_without_access()
            self._access_checked_at = time.monotonic()
        for source in SOURCES:
            feeds = {id: feed for (of, id), feed in self._feeds.items() if of is source}
            if feeds:
                await self._refresh(source, feeds)

    async def _refresh(self, source: Source, feeds: Mapping[str, Feed]) -> None:
        positions = await self._ask(self._own_thread, source.positions, list(feeds))
        for id, feed in feeds.items():
            feed.begin(positions.get(id))
        behind = [feed for id, feed in feeds.items() if id in positions and feed.last < positions[id].last]
        for first in range(0, len(behind), FEEDS):
            await self._read_new(source, behind[first : first + FEEDS])
        for id, feed in feeds.items():
            feed.settle(positions.get(id))

    async def _read_new(self, source: Source, feeds: Sequence[Feed]) -> None:
        limit = max(1, BATCH // len(feeds))
        while feeds:
            entries = await self._ask(self._own_thread, source.read, {feed.id: feed.last for feed in feeds}, limit)
            new = {id: list(some) for id, some in groupby(entries, attrgetter("feed_id"))}
            for feed in feeds:
                feed.add(new.get(feed.id, ()))
            feeds = [feed for feed in feeds if len(new.get(feed.id, ())) == limit]

    async def _end_without_access(self) -> None:
        callers = {listener.caller for listener in self.listeners}
        allowed = await self._ask(self._own_thread, still_allowed, callers)
        for listener in self.listeners:
            # who came meanwhile was asked at the door
            if listener.caller in callers - allowed:
                listener.end()

    async def _ask(self, threads: CapacityLimiter, question: Callable[..., Asked], *about: object) -> Asked:
        def ask() -> Asked:
            with self._database.read() as session:
                return question(session, *about)

        return await to_thread.run_sync(ask, limiter=threads)


def _catch_up(session: Session, feed: Feed, number: int) -> tuple[list[Entry], int, bool]:
    """Events after `number`, the number up to which that is all of them, and whether the feed ends there."""
    # where the feed is comes first: a retry since then makes more events than it knew of, and the stream goes on
    position = feed.source.positions(session, [feed.id]).get(feed.id)
    entries = feed.source.read(session, {feed.id: number}, BATCH)
    reached = entries[-1].number if entries else number
    if position is None or len(entries) == BATCH:
        return entries, reached, position is None
    return entries, max(reached, position.last), position.ended and reached <= position.last
