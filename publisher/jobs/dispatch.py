"""Tell the workers that a job waits. The message is a hint: when it is lost, the reaper sends another."""

from __future__ import annotations

import logging

from kombu.exceptions import OperationalError
from sqlalchemy import update

from publisher.jobs.broker import RUN_JOB, create_celery
from publisher.settings import Settings
from publisher.store.database import Database, database_now
from publisher.store.models import Job
from publisher.store.states import JobState

logger = logging.getLogger(__name__)


class Dispatcher:
    """Sends job ids through the broker. Safe to share between threads."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._celery = create_celery(settings)

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
        try:
            self._celery.send_task(RUN_JOB, args=[job_id], retry=False)
        except (OperationalError, OSError) as error:
            logger.warning("broker is down, %s waits for the reaper: %s", job_id, error)
            return False
        return True

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
