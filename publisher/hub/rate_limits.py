"""Requests a minute of each tenant: to the API, the dashboard and the embedded Hub together.

Counted where it is known who calls. With Redis as broker all processes count together; without, or while it is away,
each for itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Protocol, cast

import redis
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from publisher.errors import RequestFault
from publisher.hub.answer_start import at_start
from publisher.hub.rate_window import WINDOW_SECONDS, Rate, fits, rate_of, share_of_before
from publisher.settings import Settings
from publisher.store import origin
from publisher.store.database import Database
from publisher.store.quotas import REQUESTS_PER_MINUTE, limit_of

logger = logging.getLogger(__name__)

#: seconds for which a tenant's limit is remembered
REMEMBERED_SECONDS = 10.0
#: seconds that Redis may take, and for which it is left alone when it did not answer
_PATIENCE, _PAUSE = 0.25, 5.0
#: of a limit, what a process fetches at once and gives out by itself; what it has left at the end of a minute is lost
_SHARE = 50
# one round trip, and nobody counts in between
_COUNT = """
local before = tonumber(redis.call('GET', KEYS[1]) or '0')
local current = tonumber(redis.call('GET', KEYS[2]) or '0')
local room = tonumber(ARGV[1]) - math.floor(before * ARGV[2]) - current
local granted = math.min(tonumber(ARGV[4]), room)
if granted < 1 then return {0, before, current} end
current = redis.call('INCRBY', KEYS[2], granted)
redis.call('EXPIRE', KEYS[2], ARGV[3])
return {granted, before, current}
"""


class TooManyRequests(RequestFault):
    """A tenant has sent as many requests as it may in a minute."""

    status = 429
    slug = "too-many-requests"
    title = "Too many requests"

    def __init__(self, rate: Rate) -> None:
        super().__init__(
            f"You may send {rate.most} requests a minute, and have ({REQUESTS_PER_MINUTE.name}).",
            way_out=f"Try again in {rate.retry_after} s, or ask the service's operator for more.",
        )
        self.retry_after = float(rate.retry_after)


class Counters(Protocol):
    """`now` in seconds since 1970."""

    def count(self, tenant_id: str, most: int, now: float) -> Rate: ...


class OwnCounters:
    """Of this process alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[int, int, int]] = {}  # tenant → minute, requests before it, requests in it

    def count(self, tenant_id: str, most: int, now: float) -> Rate:
        minute, elapsed = _place(now)
        with self._lock:
            last, before, current = self._counts.get(tenant_id, (minute, 0, 0))
            if last != minute:
                before, current = (current if last == minute - 1 else 0), 0
            allowed = fits(most, before, current, elapsed)
            current += allowed
            self._counts[tenant_id] = (minute, before, current)
        return rate_of(most, before, current, elapsed, allowed=allowed)


@dataclass
class _Fetched:
    """Requests that this process may still let in: `left` of those that Redis has counted in `current`."""

    most: int
    minute: int
    before: int
    current: int
    left: int

    def serves(self, most: int, minute: int) -> bool:
        return self.left > 0 and (self.most, self.minute) == (most, minute)


class SharedCounters:
    """Of all processes with the same Redis. Raises redis.RedisError while it is away."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE)
        self._script = self._redis.register_script(_COUNT)
        self._lock = threading.Lock()
        self._fetched: dict[str, _Fetched] = {}

    def count(self, tenant_id: str, most: int, now: float) -> Rate:
        minute, elapsed = _place(now)
        with self._lock:
            found = self._fetched.get(tenant_id)
            if found is not None and found.serves(most, minute):
                found.left -= 1
                return rate_of(most, found.before, found.current - found.left, elapsed, allowed=True)
        granted, before, current = self._fetch(tenant_id, most, minute, elapsed)
        with self._lock:
            found = self._fetched.get(tenant_id)
            # another thread may have fetched some meanwhile
            left = max(0, granted - 1) + (found.left if found is not None and found.serves(most, minute) else 0)
            self._fetched[tenant_id] = _Fetched(most, minute, before, current, left)
        return rate_of(most, before, current - left, elapsed, allowed=granted > 0)

    def _fetch(self, tenant_id: str, most: int, minute: int, elapsed: float) -> list[int]:
        # braces: a cluster keeps both on one machine
        keys = [f"publisher:rate:{{{tenant_id}}}:{each}" for each in (minute - 1, minute)]
        arguments = [most, share_of_before(elapsed), 2 * WINDOW_SECONDS, max(1, most // _SHARE)]
        return cast(list[int], self._script(keys=keys, args=arguments))


class RateLimiter:
    """Safe to share between threads."""

    def __init__(self, database: Database, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._own = OwnCounters()
        url = settings.resolved_broker_url
        self._shared = SharedCounters(url) if url.startswith(("redis://", "rediss://")) else None
        self._shared_from = 0.0
        self._limits: dict[str, tuple[float, int | None]] = {}  # tenant → until when it is remembered, its limit

    def admit(self, tenant_id: str) -> None:
        """Count this request, once however often its sender is looked up. Raises TooManyRequests."""
        source = origin.current()
        most = self._limit(tenant_id)
        if most is None or source.rate is not None:
            return
        source.rate = rate = self._count(tenant_id, most)
        if not rate.allowed:
            raise TooManyRequests(rate)

    def _limit(self, tenant_id: str) -> int | None:
        now = time.monotonic()
        until, most = self._limits.get(tenant_id, (0.0, None))
        if now >= until:
            with self._database.read() as session:
                most = limit_of(session, tenant_id, REQUESTS_PER_MINUTE)
            self._limits[tenant_id] = (now + REMEMBERED_SECONDS, most)
        return most

    def _count(self, tenant_id: str, most: int) -> Rate:
        now = self._clock()
        if self._shared is not None and time.monotonic() >= self._shared_from:
            try:
                return self._shared.count(tenant_id, most, now)
            except redis.RedisError as error:
                self._shared_from = time.monotonic() + _PAUSE
                logger.warning("Redis is away, this process counts requests for itself: %s", error)
        return self._own.count(tenant_id, most, now)


class RateLimitHeaders:
    """Tells in an answer how many requests are left, to tenants that have a limit."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        await self._app(scope, receive, at_start(send, _tell_rate))


def _tell_rate(message: Message) -> None:
    rate = origin.current().rate
    if isinstance(rate, Rate):
        headers = MutableHeaders(scope=message)
        headers["RateLimit-Policy"], headers["RateLimit"] = rate.policy, rate.state
        if not rate.allowed:
            headers["Retry-After"] = str(ceil(rate.retry_after))


def _place(now: float) -> tuple[int, float]:
    """Which minute it is, and how many seconds of it have passed."""
    minute, elapsed = divmod(now, WINDOW_SECONDS)
    return int(minute), elapsed
