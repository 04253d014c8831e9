"""Looks in the background whether database, broker, storage and disk are there, so that nobody waits for the answer."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from publisher.api.outside import in_daemon_thread
from publisher.api.service import Service
from publisher.jobs import census
from publisher.store.faults import database_fault
from publisher.store.resources import live_workers

OK = "ok"
_logger = logging.getLogger(__name__)
#: seconds between two looks at the same thing, and how long one may take before it counts as away
INTERVAL, PATIENCE = 1.0, 3.0
#: jobs say what they wait for every few seconds only
CAPACITY_INTERVAL = 5.0


@dataclass(frozen=True)
class Found:
    """`said`: OK or what is wrong; `age` in seconds."""

    said: str
    age: float


class Look:
    """One thing that is looked at; at most one look is under way, however long it takes."""

    def __init__(self, name: str, check: Callable[[], str], interval: float = INTERVAL) -> None:
        self._name, self._check, self._interval = name, check, interval
        self._said = "not looked at yet"
        self._at = self._begun = time.monotonic()
        self._under_way = False
        self.looked = asyncio.Event()

    async def run(self) -> None:
        """Look again and again."""
        while True:
            self._begun, self._under_way = time.monotonic(), True
            try:
                self._said = await in_daemon_thread(self._check)
            except Exception as error:
                _logger.exception("looking at the %s failed", self._name)
                self._said = f"cannot be looked at: {type(error).__name__}"
            self._at, self._under_way = time.monotonic(), False
            self.looked.set()
            await asyncio.sleep(self._interval)

    def found(self) -> Found:
        """What the last look found; that there was no answer, if one takes longer than PATIENCE."""
        now = time.monotonic()
        if self._under_way and now - self._begun > PATIENCE:
            return Found(f"no answer for {now - self._begun:.0f} s", now - self._at)
        return Found(self._said, now - self._at)


class Watchdog:
    """`found()` is at most a few seconds old. Lives in the event loop of one API process, from `start` to `stop`."""

    def __init__(self, service: Service) -> None:
        #: workers seen within the last lease, of all tenants
        self.workers = 0
        checks = {"database": self._database, "broker": _broker, "storage": _storage, "disk": _disk}
        self._looks = {name: Look(name, partial(check, service)) for name, check in checks.items()}
        self._capacity = Look("capacity", partial(_capacity, service), CAPACITY_INTERVAL)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when everything was looked at once, or did not answer in time."""
        looks = [*self._looks.values(), self._capacity]
        self._tasks = [asyncio.create_task(look.run()) for look in looks]
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                for look in looks:
                    await look.looked.wait()

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    def found(self) -> dict[str, Found]:
        return {name: look.found() for name, look in self._looks.items()}

    @property
    def capacity(self) -> str:
        """OK, or which jobs wait for a worker that is not there: they are accepted all the same."""
        return self._capacity.found().said

    def _database(self, service: Service) -> str:
        try:
            with service.database.read() as session:
                self.workers = live_workers(session, service.settings.lease_seconds)
        except SQLAlchemyError as error:
            self.workers = 0
            return f"away: {database_fault(error, service.database.engine.url).message}"
        return OK


def _capacity(service: Service) -> str:
    try:
        with service.database.read() as session:
            live = live_workers(session, service.settings.lease_seconds)
            waiting = census.unserved(session)
    except SQLAlchemyError:
        return "unknown while the database is away"
    queues = ", ".join(f"{number} of queue {queue}" for queue, number in waiting.items())
    if waiting:
        return f"{queues} wait for a worker that holds them" if live else f"no worker is running; {queues} wait for one"
    return OK if live else "no worker is running"


def _broker(service: Service) -> str:
    return OK if service.dispatcher.is_reachable() else "away; jobs are accepted and wait until it is back"


def _storage(service: Service) -> str:
    """A file is really written: a disk that was remounted read-only looks as before."""
    folder = service.settings.data_dir
    trial = folder / f".writable-{os.getpid()}"
    try:
        trial.write_bytes(b"x")
        trial.unlink()
    except OSError as error:
        return f"{folder} cannot be written to: {error.strerror}"
    return OK


def _disk(service: Service) -> str:
    folder, least = service.settings.data_dir, service.settings.ready_free_bytes
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"{folder} cannot be looked at: {error.strerror}"
    return OK if free >= least else f"the disk under {folder} has {free:,} bytes free; at least {least:,} should be"
