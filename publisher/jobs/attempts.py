"""The history of a job's tries: who had it, from when to when, how that ended. A retry forgets none of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from publisher.recipe.stages import Stage
from publisher.store import tallies
from publisher.store.database import database_now
from publisher.store.models import Job, JobAttempt
from publisher.store.states import AttemptOutcome


def begin(session: Session, job_id: str) -> int:
    """Keep that a worker has just claimed the job; returns the attempt's number, its lease's token."""
    known = (Job.lease_token, Job.attempt, Job.worker, Job.started_at, Job.event_seq)
    number, attempt, worker, started_at, event = session.execute(select(*known).where(Job.id == job_id)).one()
    row = {"job_id": job_id, "number": number, "attempt": attempt, "worker": worker, "started_at": started_at}
    session.execute(insert(JobAttempt).values(**row, stages={}, first_event=event))
    return int(number)


def end(session: Session, job_id: str, number: int, outcome: AttemptOutcome, **values: Any) -> None:
    """Keep how it ended, after the job's row says so. `values`: failure, waiting."""
    of_job = Job.id == job_id
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.job_id == job_id, JobAttempt.number == number)
        .values(
            finished_at=database_now(),
            outcome=outcome.value,
            last_event=select(Job.event_seq).where(of_job).scalar_subquery(),
            stages=select(Job.stages).where(of_job).scalar_subquery(),
            **values,
        )
        .execution_options(synchronize_session=False)
    )
    _count(session, job_id, outcome, values.get("failure"))


def _count(session: Session, job_id: str, outcome: AttemptOutcome, failure: Mapping[str, Any] | None) -> None:
    stage = session.scalar(select(Job.stage).where(Job.id == job_id)) or ""
    blame = str(failure["blame"]) if failure and outcome is AttemptOutcome.FAILED else ""
    tallies.count(session, tallies.ATTEMPTS, outcome.value, stage, blame)
    if stage == Stage.PUBLISH:
        tallies.count(session, tallies.PUBLICATIONS, outcome.value)
