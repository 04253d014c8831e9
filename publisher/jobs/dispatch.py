"""Tell the workers that a job waits. The message is a hint: when it is lost, the reaper sends another."""

from __future__ import annotations

import logging
import threading

from kombu.exceptions import OperationalError
from sqlalchemy import update

from publisher.jobs.broker import RUN_JOB, create_celery
from publisher.settings import Settings
from publisher.store.database import Database, database_now
from publisher.store.models import Job
from publisher.store.states import JobState

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
        if not self.publish(job_id):
            return False
        with self._database.write() as session:
            # not if a worker was faster: a finished try clears the field for the next one
            statement = update(Job).where(Job.id == job_id, Job.state == JobState.QUEUED)
            session.execute(statement.values(dispatched_at=database_now()))
        return True

    def publish(self, job_id: str) -> bool:
        """Only the message; whoever calls keeps `dispatched_at`."""
        if not self._gate.enter():
            return False
        worked = False
        try:
            self._celery.send_task(RUN_JOB, args=[job_id], retry=False)
            worked = True
        except (OperationalError, OSError) as error:
            logger.warning("broker is down, %s waits for the reaper: %s", job_id, error)
        finally:
            self._gate.leave(worked=worked)
        return worked

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
