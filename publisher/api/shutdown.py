"""The end of the process as those see it who stream: at the signal, not when every answer has ended.

A server tells its application of its end when the last connection is closed, which an event stream never does by
itself. So the application listens to the same signals, ends its streams (their listeners come again and resume), and
bounds how long the server waits for everything else.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from anyio import CancelScope

from publisher.hub.connections import current_server

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: seconds that answers under way get; slow downloads are cut then, and their clients go on with a range
GRACE = 10


class Shutdown:
    """Lives in the event loop of one API process."""

    def __init__(self) -> None:
        self.begun = False
        self._waits: set[CancelScope] = set()

    def begin(self) -> None:
        """End every stream, also those that are opened from now on."""
        self.begun = True
        for wait in [*self._waits]:
            wait.cancel()

    async def until(self, stream: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        """What `stream` yields, to its end or to the process's end, when it is closed where it waits."""
        try:
            while not self.begun:
                with CancelScope() as wait:
                    self._waits.add(wait)
                    try:
                        piece = await anext(stream, None)
                    finally:
                        self._waits.discard(wait)
                if wait.cancelled_caught or piece is None:
                    return
                yield piece
        finally:
            await stream.aclose()

    @contextmanager
    def at_signals(self) -> Iterator[None]:
        """Begin at the signals that end the process, before whoever handled them so far. Nothing where the event loop
        runs in another than the main thread, whose server gets no signals either."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        _bound_patience(current_server())

        def handle(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.begin)
            handler = before[signal.Signals(number)]
            if callable(handler):
                handler(number, frame)
            elif handler == signal.SIG_DFL:
                signal.signal(number, handler)
                signal.raise_signal(number)

        for number in _SIGNALS:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                if signal.getsignal(number) is handle:
                    signal.signal(number, handler)


def _bound_patience(server: uvicorn.Server | None) -> None:
    """uvicorn waits for ever unless it is told otherwise (--timeout-graceful-shutdown)."""
    if server is not None and server.config.timeout_graceful_shutdown is None:
        server.config.timeout_graceful_shutdown = GRACE
