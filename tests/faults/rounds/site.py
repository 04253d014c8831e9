"""The installation that rounds are played on: started once and kept, with everything in it that can be broken."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
from huggingface_hub import HfApi
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError

from publisher.jobs.dispatch import Dispatcher
from publisher.store.database import database_now
from publisher.store.models import Job
from tests import servers
from tests.faults.installation import KEY, Installation, is_gone
from tests.faults.rounds.disk import Disk, disk_for
from tests.faults.rounds.proxy import HubProxy
from tests.faults.rounds.recorder import wait
from tests.faults.rounds.script import Form

LEASE_SECONDS = 6.0
#: so many that no round can use them up: a job that fails was given up too early
MAX_ATTEMPTS = 12
SETTINGS = {
    "LEASE_SECONDS": LEASE_SECONDS,
    "HEARTBEAT_SECONDS": 1,
    "REAPER_SECONDS": 0.5,
    "REDISPATCH_SECONDS": 1.5,
    "CANCEL_GRACE_SECONDS": 2,
    "RETRY_BACKOFF_SECONDS": 0.1,
    "DISK_LOOK_SECONDS": 1,
    "MAX_ATTEMPTS": MAX_ATTEMPTS,
}
WORKERS = ("w1", "w2")
PATIENCE_SECONDS = 120.0


class Switch:
    """A server that is stopped and started again, as often as wanted."""

    def __init__(self, serving: Callable[[], AbstractContextManager[object]]) -> None:
        self._serving = serving
        self._running: ExitStack | None = None
        self._lock = threading.Lock()

    def on(self) -> None:
        with self._lock:
            if self._running is None:
                self._running = ExitStack()
                self._running.enter_context(self._serving())

    def off(self) -> None:
        with self._lock:
            if self._running is not None:
                self._running.close()
                self._running = None


class HeldFile:
    """A SQLite database that nobody else can write to while it is off."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._holder: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def on(self) -> None:
        with self._lock:
            if self._holder is not None:
                self._holder.close()
                self._holder = None

    def off(self) -> None:
        with self._lock:
            if self._holder is None:
                self._holder = sqlite3.connect(self._path, timeout=30, check_same_thread=False, isolation_level=None)
                self._holder.execute("BEGIN IMMEDIATE")


@dataclass
class Site:
    """`killed`: processes that a round killed on purpose."""

    form: Form
    installation: Installation
    proxy: HubProxy
    disk: Disk
    switches: dict[str, Switch | HeldFile]
    dispatcher: Dispatcher
    processes: dict[str, psutil.Popen] = field(default_factory=dict)
    killed: set[int] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def url(self) -> str:
        """Of the API, past the proxy."""
        return self.installation.url

    def start(self, name: str) -> None:
        """Start the API or a worker, unless it runs; returns at once."""
        with self.lock:
            if name in self.processes and not is_gone(self.processes[name]):
                return
            spawn = self.installation.spawn_api if name == "api" else lambda: self.installation.spawn_worker(name)
            self.processes[name] = spawn()

    def kill(self, name: str) -> None:
        with self.lock:
            process = self.processes[name]
            self.killed.add(process.pid)
            process.kill()
            process.wait()

    def worker_of(self, job_id: str) -> str:
        """The name of the worker that runs the job; of the first if none does."""
        found = (name for name in WORKERS if self._child(name, job_id) is not None)
        return next(found, WORKERS[0])

    def process_of(self, job_id: str) -> psutil.Process | None:
        """The job's own process."""
        found = (self._child(name, job_id) for name in WORKERS)
        return next((child for child in found if child is not None), None)

    def _child(self, worker: str, job_id: str) -> psutil.Process | None:
        with suppress(psutil.Error):
            for child in self.processes[worker].children():
                if job_id in child.cmdline():
                    return child
        return None

    def family(self) -> list[psutil.Process]:
        """API, workers and everything that they started."""
        found = []
        for process in self.processes.values():
            with suppress(psutil.Error):
                found += [process, *process.children(recursive=True)]
        return found

    def mend(self) -> None:
        """Everything runs, answers and takes jobs when this returns. Raises TimeoutError if that takes minutes."""
        self.disk.free()
        for switch in self.switches.values():
            switch.on()
        for process in self.family():
            with suppress(psutil.Error):
                process.resume()
        self.start("api")
        servers.wait_until(self.installation.is_ready, "readiness of the API", PATIENCE_SECONDS)
        for name in WORKERS:
            self.start(name)
        for name in WORKERS:
            self._await_worker(name)

    def _await_worker(self, name: str) -> None:
        process = self.processes[name]
        servers.wait_until(lambda: self.installation.was_seen(name, process), f"start of {name}", PATIENCE_SECONDS)

    def ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        """The API's answer, as often as it takes until there is one that is not its or its machines' fault."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        headers = {"Authorization": f"Bearer {KEY}", **how.pop("headers", {})}
        while True:
            with suppress(httpx.TransportError):
                answer = httpx.request(method, f"{self.url}{path}", headers=headers, timeout=10, **how)
                if answer.status_code < 500 or time.monotonic() > deadline:
                    return answer
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} {path} was not answered for {PATIENCE_SECONDS:.0f} s")
            time.sleep(0.2)

    def commits(self, repo_id: str) -> list[str]:
        """Of checkpoints, newest first; without the one that made the repository."""
        hub = HfApi(endpoint=f"{self.url}/hub", token=KEY)
        if not hub.repo_exists(repo_id):
            return []
        return [commit.commit_id for commit in hub.list_repo_commits(repo_id) if commit.title.startswith("Publish")]

    def hasten(self) -> None:
        """Have jobs that wait for something look for it again at once: that takes at least ten seconds otherwise."""
        due = update(Job).where(Job.waiting.is_not(None), Job.claimable_at > database_now() + 1)
        with suppress(SQLAlchemyError), self.installation.database.write() as session:  # which may be away
            session.execute(due.values(claimable_at=database_now() + 1))

    def is_quiet(self, seconds: float = 30) -> bool:
        """Whether all requests to the Hub have come to their end, in time."""
        return wait(lambda: self.proxy.in_flight == 0, seconds)


@contextmanager
def site(form: Form, folder: Path) -> Iterator[Site]:
    """A running site below `folder`, with a base model and text."""
    with ExitStack() as stack:
        switches, database_url, broker_url = _servers(form, folder, stack)
        running: list[Site] = []
        disk = stack.enter_context(disk_for(folder / "data", lambda: running[0].family() if running else []))
        port = servers.free_port()
        changes = SETTINGS | {"PUBLIC_URL": f"http://127.0.0.1:{port}"}
        installation = Installation.create(folder, database_url, broker_url, changes)
        stack.callback(installation.stop)
        proxy = stack.enter_context(HubProxy(int(installation.url.rpartition(":")[2]), port))
        dispatcher = Dispatcher(installation.database, installation.settings)
        stack.callback(dispatcher.close)
        running.append(Site(form, installation, proxy, disk, switches, dispatcher))
        running[0].mend()
        installation.register()
        yield running[0]


def _servers(form: Form, folder: Path, stack: ExitStack) -> tuple[dict[str, Switch | HeldFile], str, str]:
    """What can be switched, and where database and broker are."""
    if form is Form.EMBEDDED:
        path = folder / "data" / "publisher.db"
        return {"database": HeldFile(path)}, f"sqlite:///{path}", "filesystem://"
    cluster = stack.enter_context(servers.postgresql_cluster())
    port = servers.free_port()
    database, broker = Switch(cluster.serving), Switch(lambda: servers.redis_server(folder, port))
    for switch in (database, broker):
        switch.on()
        stack.callback(switch.off)
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE rounds")
    return (
        {"database": database, "broker": broker},
        cluster.url.replace("/postgres", "/rounds"),
        f"redis://127.0.0.1:{port}/0",
    )
