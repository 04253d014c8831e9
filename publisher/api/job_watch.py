"""Tells many listeners when their jobs have new events, with one small query at a time for all of them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from anyio import CapacityLimiter, to_thread
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from publisher.store.database import Database
from publisher.store.models import Job

_logger = logging.getLogger(__name__)

#: how late an event may reach a listener, in seconds
INTERVAL = 0.25
#: threads for all listeners together, apart from those that serve requests
THREADS = 4


class JobWatch:
    """Lives in the event loop of one API process, from `start` to `stop`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: Counter[str] = Counter()
        self._numbers: dict[str, int] = {}
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self.threads = CapacityLimiter(THREADS)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @contextmanager
    def listening(self, job_id: str) -> Iterator[None]:
        """While inside, the job is looked at."""
        self._listeners[job_id] += 1
        try:
            yield
        finally:
            self._listeners[job_id] -= 1
            if not self._listeners[job_id]:
                del self._listeners[job_id]
                self._numbers.pop(job_id, None)

    async def news(self, job_id: str, seq: int, seconds: float) -> bool:
        """Wait until the job has an event after number `seq`; False if there is none within `seconds`."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: self._numbers.get(job_id, 0) > seq)
        except TimeoutError:
            return False
        return True

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            if not self._listeners:
                continue
            try:
                numbers = await to_thread.run_sync(self._query, list(self._listeners), limiter=self.threads)
            except SQLAlchemyError as error:
                _logger.warning("event streams wait for the database: %s", error)
                continue
            async with self._changed:
                self._numbers.update({id: seq for id, seq in numbers.items() if id in self._listeners})
                self._changed.notify_all()

    def _query(self, ids: list[str]) -> dict[str, int]:
        with self._database.read() as session:
            rows = session.execute(select(Job.id, Job.event_seq).where(Job.id.in_(ids)))
            return {row.id: row.event_seq for row in rows}
