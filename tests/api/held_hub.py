"""A Hub that takes requests and answers none of them until it is told to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Receive, Scope, Send

from tests.servers import serve


class HeldHub:
    """`url`: where it is; `asked`: requests so far. Then every answer is 404."""

    def __init__(self) -> None:
        self.url = ""
        self.asked = 0
        self._came = threading.Condition()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._released = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        released = asyncio.Event()
        with self._came:
            self.asked += 1
            self._waiting.append((asyncio.get_running_loop(), released))
            if self._released:
                released.set()
            self._came.notify_all()
        await released.wait()
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def wait_for(self, requests: int, seconds: float = 60) -> None:
        """Return when so many have come."""
        with self._came:
            assert self._came.wait_for(lambda: self.asked >= requests, seconds), f"only {self.asked} came"

    def release(self) -> None:
        with self._came:
            self._released = True
            for loop, released in self._waiting:
                loop.call_soon_threadsafe(released.set)


@contextmanager
def held_hub() -> Iterator[HeldHub]:
    """Released at the latest when the block is left."""
    hub = HeldHub()
    with serve(hub) as port:
        hub.url = f"http://127.0.0.1:{port}"
        try:
            yield hub
        finally:
            hub.release()
