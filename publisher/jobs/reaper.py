"""Looks for jobs that nobody looks after: lost by a worker, never sent, or sent and forgotten by the broker.

Every API replica runs one. Rows are taken with a lock, and what one reaper has taken another passes over.
"""

from __future__ import annotations

import logging
import threading

from sqlalchemy import func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from publisher.jobs.dispatch import Dispatcher
from publisher.jobs.leases import Lease, claimable
from publisher.jobs.transitions import Blame, Failure, RetryPolicy, fail
from publisher.settings import Settings
from publisher.store.database import Database, database_now
from publisher.store.models import Job, Worker
from publisher.store.states import ACTIVE

logger = logging.getLogger(__name__)

#: jobs per round, so that no transaction holds many rows for long
BATCH = 100


class Reaper:
    """A thread that works every `settings.reaper_seconds`; `run_once` is one round of it."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._dispatcher = Dispatcher(database, settings)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the round in progress is over."""
        self._stop.set()
        self._thread.join()
        self._dispatcher.close()

    def _run(self) -> None:
        while not self._stop.wait(self._settings.reaper_seconds):
            try:
                self.run_once()
            except SQLAlchemyError as error:
                logger.warning("reaper: database is away, trying again: %s", error)

    def run_once(self) -> None:
        self._reap_lost()
        self._send(self._take_due())

    def _reap_lost(self) -> None:
        with self._database.write() as session:
            for job in _lost_jobs(session):
                silent = f"worker {job.worker} has been silent for {self._settings.lease_seconds:g} seconds or more."
                way_out = "It is tried again by itself; see the worker's log if it keeps happening."
                failure = Failure(Blame.INFRASTRUCTURE, job.stage, silent, way_out)
                state = fail(session, Lease(job.id, job.lease_token), failure, RetryPolicy.of(self._settings))
                logger.warning("%s: %s It is %s now.", job.id, silent, state)

    def _take_due(self) -> list[str]:
        """Mark as sent, and return, the jobs that are to be sent now."""
        with self._database.write() as session:
            forgotten = _forgotten(session, self._settings.redispatch_seconds, self._settings.lease_seconds)
            ids = [*_never_sent(session), *forgotten]
            session.execute(update(Job).where(Job.id.in_(ids)).values(dispatched_at=database_now()))
        return ids

    def _send(self, ids: list[str]) -> None:
        unsent = list(ids)
        while unsent and self._dispatcher.publish(unsent[0]):
            unsent.pop(0)
        if unsent:
            with self._database.write() as session:
                session.execute(update(Job).where(Job.id.in_(unsent)).values(dispatched_at=None))


def _lost_jobs(session: Session) -> list[Job]:
    silent = select(Job).where(Job.state.in_(ACTIVE), Job.lease_expires_at < database_now())
    return list(session.scalars(silent.order_by(Job.id).limit(BATCH).with_for_update(skip_locked=True)))


def _never_sent(session: Session) -> list[str]:
    due = select(Job.id).where(claimable(), Job.claimable_at <= database_now(), Job.dispatched_at.is_(None))
    return list(session.scalars(due.order_by(Job.id).limit(BATCH).with_for_update(skip_locked=True)))


def _forgotten(session: Session, patience: float, worker_patience: float) -> list[str]:
    """Sent long ago and still queued, though a worker is idle: one job per idle worker, the oldest first.

    While all workers are busy, waiting is nothing unusual, and sending again would only fill the broker.
    """
    waiting = select(Job.id).where(
        claimable(),
        Job.claimable_at <= database_now(),
        Job.dispatched_at < database_now() - patience,
    )
    idle = min(_idle_workers(session, worker_patience), BATCH)
    return list(session.scalars(waiting.order_by(Job.id).limit(idle).with_for_update(skip_locked=True)))


def _idle_workers(session: Session, patience: float) -> int:
    busy = select(Job.id).where(Job.state.in_(ACTIVE), Job.worker == Worker.id).exists()
    alive = select(func.count()).select_from(Worker).where(Worker.seen_at > database_now() - patience)
    return session.scalar(alive.where(~busy)) or 0
