"""The one task. Its message is a hint that a job may wait; the database says whether it does."""

from __future__ import annotations

import logging
from functools import cache

from celery import Task
from celery.worker import state as celery_state

from publisher.jobs import turns
from publisher.jobs.broker import RUN_JOB
from publisher.jobs.identity import identity_of
from publisher.logs.fields import about
from publisher.settings import settings
from publisher.store.database import Database
from publisher.tracing import spans
from worker.celery import app
from worker.jobs.supervision import Supervision

logger = logging.getLogger(__name__)


@cache
def database() -> Database:
    return Database(settings().resolved_database_url)


def is_stopping() -> bool:
    """Whether this worker was told to shut down: Celery's signal handlers then set an exit code, 0 for SIGTERM."""
    return celery_state.should_stop is not None or celery_state.should_terminate is not None


@app.task(name=RUN_JOB, bind=True)  # type: ignore[untyped-decorator]  # Celery has no types
def run_job(self: Task, job_id: str) -> None:
    """Run the job whose turn it is on this worker, `job_id` or another, to its end, if there is one."""
    if is_stopping():
        return
    with database().write() as session:
        lease = turns.take(session, job_id, str(self.request.hostname), settings().lease_seconds)
        identity = None if lease is None else identity_of(session, lease)
    if lease is None:
        logger.info("nothing is to be claimed; %s runs elsewhere, is over, not due or not for this worker", job_id)
        return
    fields = identity.as_fields() if identity else {"job": lease.job_id}
    parent, attributes = (identity.traceparent, identity.as_attributes()) if identity else (None, None)
    with about(**fields), spans.span("job", parent, attributes):
        logger.info("%s begins", lease.job_id)
        Supervision(database(), settings(), lease, is_stopping).run()
