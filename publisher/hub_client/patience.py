"""How long a Hub asks to be left alone, and a client that does not hold a worker up while it waits for one.

huggingface_hub itself sleeps as long as Retry-After says, five times, and most of its calls wait for ever. In a job's
process a hiccup is tried again as it does; what takes longer is raised at once, so that the job can wait elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx2
from huggingface_hub import set_client_factory
from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]
from huggingface_hub.utils._http import hf_request_event_hook, parse_ratelimit_headers

from publisher.hub_client.guard import GuardedClient, keep_addresses_unlogged

#: seconds: to connect, for each piece that is received, and for the answer to what was sent, which is to be stored
_CONNECT, _PIECE, _STORED = 10.0, 60.0, 300.0
#: what a Hub may ask to wait here; huggingface_hub's own longest pause
_HICCUP = 8.0
#: seconds: more is not believed
LONGEST_ASKED = 24 * 3600.0


class Unanswered(httpx2.TransportError):
    """No answer came. Not of the kinds that huggingface_hub tries again by itself."""


def is_away(status: int) -> bool:
    """Whether an answer says that the Hub is overloaded, limits the rate or is out of order: later it may be right."""
    return status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or status >= 500


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from Retry-After (seconds or a date) or RateLimit, a day at most; None if the answer does not say."""
    said = _said(headers)
    return None if said is None else min(said, LONGEST_ASKED)


def _said(headers: Mapping[str, str]) -> float | None:
    try:
        limit = parse_ratelimit_headers(headers)
    except ValueError:  # of more digits than Python reads
        limit = None
    if limit is not None and limit.remaining == 0:
        return min(limit.reset_in_seconds, LONGEST_ASKED)  # before it is a float, which not every number is
    return _seconds(headers.get("retry-after", "").strip(), headers.get("date", ""))


def _seconds(said: str, now: str) -> float | None:
    if said.isdecimal():
        return float(said)  # infinite where it has hundreds of digits
    then = _moment(said)
    # by the Hub's own clock, if it shows one: ours may differ
    return None if then is None else max(0.0, then - (_moment(now) or time.time()))


def _moment(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def impatient() -> None:
    """Have this process's huggingface_hub raise what would take long; the job waits without a worker."""
    keep_addresses_unlogged()
    set_client_factory(_ImpatientClient)


class _ImpatientClient(GuardedClient):
    def __init__(self) -> None:
        super().__init__(event_hooks={"request": [hf_request_event_hook]}, follow_redirects=True)

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        commits = request.method == "POST" and "/commit/" in request.url.path
        _bound(request, _PIECE if request.method in ("GET", "HEAD") else _STORED)
        try:
            response = super().send(request, **options)
        except (httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
            if commits:  # sent again, the first one's answer could not be told from the second's
                raise _unanswered(error, request) from error
            raise
        except httpx2.TimeoutException as error:
            raise _unanswered(error, request) from error
        if is_away(response.status_code) and (commits or (retry_after(response.headers) or 0.0) > _HICCUP):
            response.read()
            hf_raise_for_status(response)
        return response


def _bound(request: httpx2.Request, seconds: float) -> None:
    """Most calls say that they would wait for ever."""
    longest = {"connect": _CONNECT, "read": seconds, "write": seconds, "pool": seconds}
    asked = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {kind: asked.get(kind) or limit for kind, limit in longest.items()}


def _unanswered(error: Exception, request: httpx2.Request) -> Unanswered:
    return Unanswered(f"{type(error).__name__}: {error}", request=request)
