"""When a delivery that failed is tried again, and when nobody tries any more."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Self

from publisher.settings import Settings

#: seconds between two tries at most, by ourselves and as a receiver asks
LONGEST_PAUSE, LONGEST_ASKED = 6 * 3600.0, 24 * 3600.0
_DAY = 86_400.0
#: a try puts it off by this part, so that what failed together does not come again together
_JITTER = 0.2


@dataclass(frozen=True)
class Patience:
    """Seconds: before the second try (doubling each time), from asking to giving up, and without any success until a
    webhook is disabled."""

    first_pause: float
    give_up: float
    disable: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        days = (settings.webhook_give_up_days, settings.webhook_disable_days)
        return cls(settings.webhook_backoff_seconds, *(each * _DAY for each in days))

    def pause(self, attempts: int, asked: float | None = None) -> float:
        """Seconds after try number `attempts`. `asked`: those of the answer's Retry-After."""
        own = min(self.first_pause * 2.0 ** min(attempts - 1, 40), LONGEST_PAUSE)
        least = min(asked or 0.0, LONGEST_ASKED)
        return max(own, least) * (1 + random.uniform(0, _JITTER))


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds that an answer asks to wait for, as a number or a date; None if it does not say, or nothing sensible."""
    if header is None:
        return None
    if header.strip().isascii() and header.strip().isdigit():
        return float(header.strip()[:9])
    try:
        moment = parsedate_to_datetime(header)
        then = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):  # a year or a zone of twenty digits
        return None
    return max(0.0, then - now)


def iso(at: float) -> str:
    """Seconds since 1970 as `2026-11-28T17:05:13.250Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
