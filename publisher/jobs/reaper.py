"""Looks for jobs that nobody looks after: lost by a worker, never sent, or sent and forgotten by the broker.

Every API replica runs one. Rows are taken with a lock, and what one reaper has taken another passes over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from publisher.jobs.broker import QUEUE, own_queue
from publisher.jobs.dispatch import Dispatcher, mark_sent, mark_unsent
from publisher.jobs.fleet import Fleet, busy_workers, live_fleet
from publisher.jobs.leases import Lease, unsettled
from publisher.jobs.placement import fill_shapes, keep_waiting_true
from publisher.jobs.suspension import pause_running
from publisher.jobs.transitions import Blame, Failure, RetryPolicy, fail
from publisher.jobs.turns import due, turns
from publisher.logs.fields import about
from publisher.settings import Settings
from publisher.store import tallies
from publisher.store.database import Database, database_now
from publisher.store.faults import why_away
from publisher.store.models import Job, Worker
from publisher.store.resources import latest_worker
from publisher.store.states import ACTIVE, JobState

logger = logging.getLogger(__name__)

#: jobs per round, so that no transaction holds many rows for long
BATCH = 100
#: after a day a worker that was not seen again is gone: each start has a name of its own
FORGET_SECONDS = 86_400.0


@dataclass(frozen=True)
class Round:
    """`lost`: job, why, its state now; `sent`: job → queue of the broker, `unsent`: those that it did not take;
    `forgotten`: workers."""

    lost: list[tuple[str, str, JobState]]
    sent: dict[str, str]
    unsent: list[str]
    forgotten: list[str]


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
        self.close()

    def close(self) -> None:
        """For one that was never started."""
        self._dispatcher.close()

    def _run(self) -> None:
        while not self._stop.wait(self._settings.reaper_seconds):
            try:
                self.run_once()
            except SQLAlchemyError as error:
                logger.warning("reaper tries again: %s", why_away(error))

    def run_once(self) -> Round:
        lost = self._reap_lost()
        with self._database.write() as session:
            pause_running(session)
        due = self._take_due()
        unsent = self._send(due)
        gone = self._keep_true()
        return Round(lost, {job: queue for job, queue in due.items() if job not in unsent}, unsent, gone)

    def _reap_lost(self) -> list[tuple[str, str, JobState]]:
        said = []
        with self._database.write() as session:
            for job in _lost_jobs(session):
                silent = f"worker {job.worker} has been silent for {self._settings.lease_seconds:g} seconds or more."
                way_out = "It is tried again by itself; see the worker's log if it keeps happening."
                failure = Failure(Blame.INFRASTRUCTURE, job.stage, silent, way_out)
                state = fail(session, Lease(job.id, job.lease_token), failure, RetryPolicy.of(self._settings))
                tallies.count(session, tallies.LEASES_EXPIRED, job.queue or "")
                said.append((_fields_of(job), silent, state))
        # only now: what a full disk rolled back has not happened
        for known, silent, state in said:
            with about(**known):
                logger.warning("%s: %s It is %s now.", known["job"], silent, state)
        return [(str(known["job"]), silent, state) for known, silent, state in said]

    def _take_due(self) -> dict[str, str]:
        """Mark as sent, and return with the queue of the broker, the jobs that are to be sent now."""
        with self._database.write() as session:
            fleet = live_fleet(session, self._settings.lease_seconds)
            busy = busy_workers(session)
            idle = [worker for worker in fleet.workers if worker.id not in busy]
            patience = self._settings.redispatch_seconds
            return (
                mark_sent(session, _never_sent(session))
                | _forgotten(session, fleet, idle, patience)
                | _unsettled(session, idle, patience)
            )

    def _send(self, queues: dict[str, str]) -> list[str]:
        """Those that the broker did not take."""
        unsent = list(queues)
        while unsent and self._dispatcher.publish(unsent[0], queues[unsent[0]]):
            unsent.pop(0)
        if unsent:
            with self._database.write() as session:
                mark_unsent(session, unsent)
        return unsent

    def _keep_true(self) -> list[str]:
        """What jobs say they wait for, and which workers there are; those that are not any more."""
        keep_waiting_true(self._database, self._settings.lease_seconds)
        with self._database.write() as session:
            fill_shapes(session)
            gone = _gone_workers(session)
            tallies.merge(session)
        for worker in gone:
            self._dispatcher.forget(worker)
        return gone


def _fields_of(job: Job) -> dict[str, object]:
    """Of a line of the log."""
    return {
        **{"job": job.id, "variant": job.variant_id, "tenant": job.tenant_id},
        **{"stage": job.stage, "attempt": job.attempt, "worker": job.worker},
    }


def _lost_jobs(session: Session) -> list[Job]:
    silent = select(Job).where(Job.state.in_(ACTIVE), Job.lease_expires_at < database_now())
    return list(session.scalars(silent.order_by(Job.id).limit(BATCH).with_for_update(skip_locked=True)))


def _never_sent(session: Session) -> list[str]:
    unsent = select(Job.id).where(*due(), Job.dispatched_at.is_(None)).order_by(Job.precedence, Job.id)
    return list(session.scalars(unsent.limit(BATCH).with_for_update(skip_locked=True)))


def _forgotten(session: Session, fleet: Fleet, idle: Sequence[Worker], patience: float) -> dict[str, str]:
    """Sent long ago and still queued, though a worker that they are for is idle: one job for each, whose turn it is,
    into the worker's own queue.

    While all workers are busy, waiting is nothing unusual, and sending again would only fill the broker.
    """
    found: dict[str, str] = {}
    for worker in idle:
        unheard = Job.dispatched_at < database_now() - patience
        for job_id in turns(session, worker, fleet, unheard):
            # another reaper may have been faster
            again = update(Job).where(Job.id == job_id, *due(), unheard).values(dispatched_at=database_now())
            if session.scalar(again.returning(Job.id).execution_options(synchronize_session=False)):
                found[job_id] = _heard_by(worker)
                break
    return found


def _unsettled(session: Session, idle: Sequence[Worker], patience: float) -> dict[str, str]:
    """Jobs of which the Hub has to be asked, never sent or sent long ago: any worker can, whatever it holds."""
    unheard = Job.dispatched_at.is_(None) | (Job.dispatched_at < database_now() - patience)
    jobs = select(Job.id).where(unsettled(), Job.claimable_at <= database_now(), unheard).order_by(Job.id)
    ids = list(session.scalars(jobs.limit(BATCH).with_for_update(skip_locked=True)))
    session.execute(update(Job).where(Job.id.in_(ids)).values(dispatched_at=database_now()))
    return dict.fromkeys(ids, _heard_by(idle[0]) if idle else QUEUE)


def _heard_by(worker: Worker) -> str:
    """A queue of the broker that this worker looks at."""
    return QUEUE if worker.queues is None else own_queue(worker.id)


def _gone_workers(session: Session) -> list[str]:
    """Take them out; the last one that was seen stays, since plans take their speed from it."""
    latest = latest_worker(session)
    long_ago = Worker.seen_at < database_now() - FORGET_SECONDS
    gone = delete(Worker).where(long_ago, Worker.id != (latest.id if latest else "")).returning(Worker.id)
    return list(session.scalars(gone.execution_options(synchronize_session=False)))
