"""Tell the workers that a job waits. The message is a hint: when it is lost, the reaper sends another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from kombu.exceptions import OperationalError
from sqlalchemy import update
from sqlalchemy.orm import Session

from publisher.jobs.broker import RUN_JOB, celery_queue, create_celery, own_queue, sized_queue
from publisher.settings import Settings
from publisher.store.database import Database, database_now
from publisher.store.models import Job
from publisher.store.states import JobState
from publisher.tracing import spans

logger = logging.getLogger(__name__)


#: seconds that a broker may take to answer
SECONDS = 2
#: messages on their way at once; when a broker begins to hang, so many threads wait for it at most
AT_ONCE = 8


class _Gate:
    """Keeps the threads that serve requests from waiting, all together, for a broker that is away: few at a time try
    to send, and since the last one failed one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._works = True

    def enter(self) -> bool:
        """Whether to try to send; `leave` follows then. Waits for its turn while the broker works."""
        with self._changed:
            self._changed.wait_for(lambda: not self._works or self._inside < AT_ONCE, timeout=SECONDS)
            if self._inside >= (AT_ONCE if self._works else 1):
                return False
            self._inside += 1
            return True

    def leave(self, *, worked: bool) -> None:
        with self._changed:
            self._inside -= 1
            self._works = worked
            self._changed.notify_all()


class Dispatcher:
    """Sends job ids through the broker. Safe to share between threads."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._celery = create_celery(settings)
        if not settings.broker_url.startswith("filesystem:"):
            # a sender waits for nothing but its own answers; without this, for ever, on a broker that hangs
            options = {**self._celery.conf.broker_transport_options, "socket_timeout": SECONDS}
            self._celery.conf.broker_transport_options = options
        self._gate = _Gate()

    def send(self, job_id: str) -> bool:
        """Send a committed job; False, and no error, while the broker is down (the reaper tries again)."""
        with spans.span("dispatch", attributes={"loram.job": job_id}):
            return self._send(job_id)

    def _send(self, job_id: str) -> bool:
        with self._database.write() as session:
            queues = mark_sent(session, [job_id])
        if not queues:  # a worker was faster
            return True
        return self.hand_over(job_id, queues[job_id])

    def hand_over(self, job_id: str, queue: str) -> bool:
        """As `send`, of a job that was marked as sent when it was committed; `queue`: of the broker."""
        if self.publish(job_id, queue):
            return True
        with self._database.write() as session:
            mark_unsent(session, [job_id])
        return False

    def publish(self, job_id: str, queue: str) -> bool:
        """Only the message, into a queue of the broker; whoever calls keeps `dispatched_at`."""
        if not self._gate.enter():
            return False
        worked = False
        try:
            self._celery.send_task(RUN_JOB, args=[job_id], retry=False, queue=celery_queue(queue))
            worked = True
        except (OperationalError, OSError) as error:
            logger.warning("broker is down, %s waits for the reaper: %s", job_id, error)
        finally:
            self._gate.leave(worked=worked)
        return worked

    def forget(self, worker: str) -> None:
        """Take the queue of a worker that is gone out of the broker, with what is left in it."""
        with self._celery.connection_for_write() as connection:
            try:
                queue = celery_queue(own_queue(worker))(connection.default_channel)
                queue.declare()  # a connection deletes what it knows to be bound
                queue.delete()
            except (OperationalError, *connection.connection_errors, *connection.channel_errors) as error:
                logger.warning("broker is down, the queue of %s stays: %s", worker, error)

    def is_reachable(self) -> bool:
        """Whether the broker answers now; for readiness."""
        try:
            with self._celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=2)
        except (OperationalError, OSError):
            return False
        return True

    def close(self) -> None:
        self._celery.close()


def queue_in_broker(job: Job) -> str:
    """Where its message goes."""
    return sized_queue(job.queue)


def mark_sent(session: Session, job_ids: Sequence[str]) -> dict[str, str]:
    """Say of those that are still queued that they are sent now; job → the queue of the broker that it goes to, in the
    order of `job_ids`.

    Before the message goes out: whoever claims a job by it finds the mark, and a finished try clears it for the next.
    """
    statement = update(Job).where(Job.id.in_(job_ids), Job.state == JobState.QUEUED)
    marked = statement.values(dispatched_at=database_now()).returning(Job.id, Job.queue)
    rows = session.execute(marked.execution_options(synchronize_session=False))
    found = {row.id: row.queue for row in rows}
    return {job_id: sized_queue(found[job_id]) for job_id in job_ids if job_id in found}


def mark_unsent(session: Session, job_ids: Sequence[str]) -> None:
    """The broker is down: the reaper sends them."""
    session.execute(update(Job).where(Job.id.in_(job_ids)).values(dispatched_at=None))
