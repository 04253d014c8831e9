"""The history of a job's tries: who had it, from when to when, how that ended. A retry forgets none of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import Table, insert, select, update
from sqlalchemy.orm import Session

from publisher.jobs.events import JOBS, Moved
from publisher.recipe.stages import Stage
from publisher.store import tallies
from publisher.store.database import database_now
from publisher.store.models import JobAttempt
from publisher.store.states import AttemptOutcome

_ATTEMPTS = cast(Table, JobAttempt.__table__)
_INSERT = insert(_ATTEMPTS)


def begin(session: Session, job_id: str, claimed: Moved) -> int:
    """Keep that a worker has just claimed the job; returns the attempt's number, its lease's token."""
    row = {"job_id": job_id, "number": claimed.token, "attempt": claimed.attempt, "worker": claimed.worker}
    row |= {"started_at": claimed.started_at, "stages": {}, "first_event": claimed.event}
    session.execute(_INSERT, row)
    return claimed.token


def end(session: Session, job_id: str, ended: Moved, outcome: AttemptOutcome, **values: Any) -> None:
    """Keep how it ended, after the job's row says so. `values`: failure, waiting."""
    session.execute(
        update(_ATTEMPTS)
        .where(_ATTEMPTS.c.job_id == job_id, _ATTEMPTS.c.number == ended.token)
        .values(
            finished_at=database_now(),
            outcome=outcome.value,
            last_event=ended.event,
            stages=select(JOBS.c.stages).where(JOBS.c.id == job_id).scalar_subquery(),
            **values,
        )
    )
    _count(session, ended.stage or "", outcome, values.get("failure"))


def _count(session: Session, stage: str, outcome: AttemptOutcome, failure: Mapping[str, Any] | None) -> None:
    blame = str(failure["blame"]) if failure and outcome is AttemptOutcome.FAILED else ""
    tallies.count(session, tallies.ATTEMPTS, outcome.value, stage, blame)
    if stage == Stage.PUBLISH:
        tallies.count(session, tallies.PUBLICATIONS, outcome.value)
