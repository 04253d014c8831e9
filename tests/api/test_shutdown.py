"""SIGTERM ends a server in seconds, whoever listens; listeners come again and miss nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from publisher.api.shutdown import Shutdown
from publisher.client.client import Client
from publisher.client.events import Event
from publisher.jobs import service as job_service
from publisher.settings import Settings
from publisher.store import keys
from publisher.store.database import Database
from publisher.store.models import Job
from tests.jobs.rows import add_job
from tests.servers import free_port, wait_until

KEY = "loram_operator"


@contextmanager
def api_process(data: Path, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """As an operator starts it."""
    command = [sys.executable, "-m", "uvicorn", "publisher.app:app", "--port", str(port), *options]
    environment = os.environ | {"PUBLISHER_DATA_DIR": str(data)}
    with (data / "log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), "start of the API")
        yield process
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


def terminate(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def was_cut_off(data: Path) -> bool:
    """Whether the server had to cut what was under way, at the end of its patience."""
    return "graceful shutdown exceeded" in (data / "log").read_text()


def test_a_server_with_an_open_stream_ends_at_sigterm_and_its_listener_resumes(tmp_path: Path) -> None:
    port, seen = free_port(), list[Event]()
    with api_process(tmp_path, port) as process:
        job_id = job_of_operator(tmp_path)
        listener = threading.Thread(target=listen, args=(f"http://127.0.0.1:{port}", job_id, seen.append))
        listener.start()
        wait_until(lambda: bool(seen), "the first event")
        terminate(process)
    assert not was_cut_off(tmp_path)
    with api_process(tmp_path, port):
        with database(tmp_path) as rows, rows.write() as session:
            job_service.cancel(session, job_id)
        listener.join(60)
    assert [(event.id, event.data["state"]) for event in seen] == [(1, "queued"), (2, "cancelled")]


def listen(url: str, job_id: str, tell: Callable[[Event], object]) -> None:
    with Client(url, KEY) as client:
        for event in client.follow_job(job_id, pause=0.1):
            tell(event)


@contextmanager
def database(data: Path) -> Iterator[Database]:
    database = Database(Settings(data_dir=data).resolved_database_url)
    yield database
    database.close()


def job_of_operator(data: Path) -> str:
    """A queued job that the operator's key opens."""
    with database(data) as rows:
        job_id = add_job(rows)
        with rows.write() as session:
            keys.add_key(session, session.get_one(Job, job_id).tenant_id, "operator", KEY)
    return job_id


def test_who_never_reads_an_answer_does_not_hold_the_server_for_ever(tmp_path: Path) -> None:
    port = free_port()
    with api_process(tmp_path, port) as process, socket.create_connection(("127.0.0.1", port)) as half_sent:
        half_sent.sendall(b"POST /v1/plans HTTP/1.1\r\nHost: x\r\n")
        half_sent.sendall(b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
        assert answers(f"http://127.0.0.1:{port}/healthz")
        terminate(process)
    assert was_cut_off(tmp_path)


@pytest.mark.parametrize("opened", ["before", "after"])
def test_streams_are_closed_where_they_wait_whenever_they_were_opened(opened: str) -> None:
    closed = list[str]()

    async def endless() -> AsyncGenerator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            closed.append("closed")

    async def scene() -> list[bytes]:
        shutdown = Shutdown()
        if opened == "after":
            shutdown.begin()
        else:
            asyncio.get_running_loop().call_later(0.05, shutdown.begin)
        return [piece async for piece in shutdown.until(endless())]

    assert asyncio.run(scene()) == ([b"first"] if opened == "before" else [])
    assert closed == (["closed"] if opened == "before" else [])
