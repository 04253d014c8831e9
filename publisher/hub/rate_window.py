"""Requests in a sliding minute, by two counters: those of this minute, and of the one before as far as it still lies in
the last sixty seconds, as if they had come evenly. What is refused is not counted. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

WINDOW_SECONDS = 60


@dataclass(frozen=True)
class Rate:
    """How a request fared: `most` in a minute, `remaining` after this one; seconds `reset` until all that was counted
    is forgotten, `retry_after` until another one is let in (0: at once)."""

    allowed: bool
    most: int
    remaining: int
    reset: int
    retry_after: int

    @property
    def policy(self) -> str:
        """RateLimit-Policy, as draft-ietf-httpapi-ratelimit-headers-10 has it."""
        return f'"requests";q={self.most};w={WINDOW_SECONDS}'

    @property
    def state(self) -> str:
        """RateLimit, of the same draft; a client that is refused comes again when it may."""
        return f'"requests";r={self.remaining};t={self.reset if self.allowed else self.retry_after}'


def share_of_before(elapsed: float) -> float:
    """How much of the minute before counts, `elapsed` seconds into this one."""
    return 1 - elapsed / WINDOW_SECONDS


def fits(most: int, before: int, current: int, elapsed: float) -> bool:
    """Whether one more request is at most the `most`-th of the last minute."""
    return _counted(before, elapsed) + current + 1 <= most


def _counted(before: int, elapsed: float) -> int:
    """Whole requests of the minute before: with the rest of one, a limit of 1 would let in every other minute."""
    return math.floor(before * share_of_before(elapsed))


def rate_of(most: int, before: int, current: int, elapsed: float, *, allowed: bool) -> Rate:
    """`current`: with the request, if it was allowed."""
    left = WINDOW_SECONDS - elapsed
    counted = _counted(before, elapsed) + current
    reset = left + WINDOW_SECONDS if current else left
    # the next whole second after it
    wait = 0 if allowed else math.floor(_wait(most, before, current, elapsed)) + 1
    return Rate(allowed, most, max(0, most - counted), math.ceil(reset), wait)


def _wait(most: int, before: int, current: int, elapsed: float) -> float:
    """Seconds until one more fits, if none comes meanwhile; a window, where none ever does."""
    if most < 1:
        return WINDOW_SECONDS
    if current + 1 <= most:  # as soon as enough of the minute before is forgotten
        return max(0.0, WINDOW_SECONDS * (1 - (most - current) / before) - elapsed)
    return WINDOW_SECONDS - elapsed + max(0.0, WINDOW_SECONDS * (1 - most / current))
