"""A bound on the time that a Hub may take in all: its client bounds the wait for each piece, not for their sum."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import cast

import httpx2
from huggingface_hub import get_session

#: when the caller's patience ends, by time.monotonic()
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)
_installing = threading.Lock()


@contextmanager
def answers_within(seconds: float) -> Iterator[None]:
    """What this thread asks of Hubs inside the block is broken off `seconds` from now, with httpx2.ReadTimeout, however
    many requests it takes and however slowly their answers drip."""
    _install()
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def _install() -> None:
    """Let huggingface_hub's client, one for the process, look at the deadline."""
    client = get_session()
    with _installing:
        hooks = client.event_hooks
        if _bound_waiting not in hooks["request"]:
            client.event_hooks = {
                "request": [*hooks["request"], _bound_waiting],
                "response": [*hooks["response"], _bound_reading],
            }


def _left(request: httpx2.Request) -> float | None:
    """Seconds to the deadline; None without one."""
    deadline = _deadline.get()
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpx2.ReadTimeout("the answer took too long in all", request=request)
    return left


def _bound_waiting(request: httpx2.Request) -> None:
    left = _left(request)
    if left is not None:
        own = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            kind: left if own.get(kind) is None else min(left, own[kind])
            for kind in ("connect", "read", "write", "pool")
        }


def _bound_reading(response: httpx2.Response) -> None:
    if _deadline.get() is not None:
        response.stream = _Bounded(cast(httpx2.SyncByteStream, response.stream), response.request)


class _Bounded(httpx2.SyncByteStream):
    """A body, looked at the clock between its pieces."""

    def __init__(self, stream: httpx2.SyncByteStream, request: httpx2.Request) -> None:
        self._stream, self._request = stream, request

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            _left(self._request)
            yield piece

    def close(self) -> None:
        self._stream.close()
