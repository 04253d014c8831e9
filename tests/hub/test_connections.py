"""Connections that never send a request keep nobody else out, and are closed after a while."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from publisher.hub.connections import HEAD_SECONDS, SilentConnections
from tests.servers import free_port, wait_until

HALF = b"GET /healthz HTTP/1.1\r\nHost: half"


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=30).is_success
    except httpx.TransportError:
        return False


def few_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))


@pytest.mark.parametrize(
    ("application", "paths"),
    [("publisher.app:app", ("/healthz", "/readyz", "/login")), ("publisher.hub.app:app", ("/healthz",))],
)
def test_half_open_connections_keep_nobody_out(tmp_path: Path, application: str, paths: tuple[str, ...]) -> None:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", application, "--port", str(port), "--log-level", "error"]
    environment = os.environ | {"PUBLISHER_DATA_DIR": str(tmp_path)}
    process = subprocess.Popen(command, env=environment, preexec_fn=few_descriptors)  # noqa: PLW1509 - no threads here
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthz"), "start of the API")
        with ExitStack() as open_ones:
            for _ in range(300):
                connection = open_ones.enter_context(socket.create_connection(("127.0.0.1", port)))
                connection.sendall(HALF)
            for path in paths:
                assert answers(f"http://127.0.0.1:{port}{path}")
    finally:
        process.kill()
        process.wait()


_SOON = """
import sys, uvicorn
from publisher.hub import connections
connections.HEAD_SECONDS, connections.INTERVAL = 0.2, 0.1
uvicorn.run(sys.argv[1], port=int(sys.argv[2]), log_level="error")
"""


@pytest.mark.parametrize("application", ["publisher.app:app", "publisher.hub.app:app"])
def test_every_server_closes_connections_that_stay_silent(tmp_path: Path, application: str) -> None:
    port = free_port()
    environment = os.environ | {"PUBLISHER_DATA_DIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", _SOON, application, str(port)], env=environment)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthz"), "start of the server")
        with socket.create_connection(("127.0.0.1", port), timeout=60) as half:
            half.sendall(HALF)
            assert half.recv(1) == b""
    finally:
        process.kill()
        process.wait()


def test_one_that_sends_no_request_is_closed_and_one_that_waits_for_its_answer_is_not() -> None:
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def scene() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        port = listener.getsockname()[1]
        half, half_writer = await asyncio.open_connection("127.0.0.1", port)
        whole, whole_writer = await asyncio.open_connection("127.0.0.1", port)
        half_writer.write(HALF)
        whole_writer.write(HALF + b"\r\n\r\n")
        while len(server.server_state.tasks) < 1 or len(server.server_state.connections) < 2:
            await asyncio.sleep(0)
        silent = SilentConnections(server)
        silent.close_old(0)
        silent.close_old(HEAD_SECONDS - 1)
        assert len(server.server_state.connections) == 2
        silent.close_old(HEAD_SECONDS + 1)
        assert await half.read() == b""
        release.set()
        assert (await whole.readline()).startswith(b"HTTP/1.1 204")
        for writer in (half_writer, whole_writer):
            writer.close()
        server.should_exit = True
        await serving

    asyncio.run(asyncio.wait_for(scene(), 60))
