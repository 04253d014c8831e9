"""Connections on which no request arrives: thousands are borne, none for ever.

uvicorn bounds how long a connection may idle between two requests, and not how long it may take to send its first.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn

#: seconds that a client may take for the head of a request
HEAD_SECONDS = 30.0
#: seconds between two looks at the open connections
INTERVAL = 5.0
#: file descriptors where the system sets no limit
_MANY = 2**20


def allow_many() -> None:
    """Take all file descriptors that this process may have: the usual 1,024 are fewer than may connect."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # the kernel's own limit is lower
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class SilentConnections:
    """Closes those of a server that wait for a request's head for too long."""

    def __init__(self, server: uvicorn.Server) -> None:
        self._server = server
        #: connection → when it was first seen without a request under way, by time.monotonic()
        self._since: dict[Any, float] = {}

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            self.close_old(time.monotonic())

    def close_old(self, now: float) -> None:
        silent = [each for each in self._server.server_state.connections if _has_no_request(each)]
        self._since = {each: self._since.get(each, now) for each in silent}
        for connection, since in self._since.items():
            if now - since > HEAD_SECONDS:
                connection.transport.close()


@asynccontextmanager
async def silent_ones_closed() -> AsyncIterator[None]:
    """Within, those of the server that runs this application; of another server than uvicorn nothing is known."""
    server = current_server()
    closing = None if server is None else asyncio.create_task(SilentConnections(server).run())
    try:
        yield
    finally:
        if closing is not None:
            closing.cancel()


def current_server() -> uvicorn.Server | None:
    """The server that runs this application, in the main thread, whose signals it handles; None under another one."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return server if isinstance(server, uvicorn.Server) else None


def _has_no_request(connection: Any) -> bool:
    """A connection whose kind shows no request and answer (a WebSocket) is left alone."""
    cycle = getattr(connection, "cycle", connection)
    return cycle is None or getattr(cycle, "response_complete", False) is True
