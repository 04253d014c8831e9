"""What a page needs of a job's events, without reading all of them: a long job has tens of thousands."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from publisher.store.models import JobEvent
from publisher.store.states import EventKind


def of_kinds(session: Session, job_id: str, kinds: Sequence[EventKind], until: int) -> list[JobEvent]:
    """All events of these kinds with a number up to `until`, oldest first."""
    statement = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq <= until, JobEvent.kind.in_(kinds))
    return list(session.scalars(statement.order_by(JobEvent.seq)))


def last_of_kind(session: Session, job_id: str, kind: EventKind, until: int, limit: int) -> list[JobEvent]:
    """The last `limit` events of this kind with a number up to `until`, oldest first."""
    statement = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq <= until, JobEvent.kind == kind)
    return list(session.scalars(statement.order_by(JobEvent.seq.desc()).limit(limit)))[::-1]


def first_progress_after(session: Session, job_id: str, unit: str, after: int, until: int) -> JobEvent | None:
    """The first progress in this unit with a number above `after` and up to `until`: a stage may count two things."""
    statement = select(JobEvent).where(
        JobEvent.job_id == job_id,
        JobEvent.kind == EventKind.PROGRESS,
        JobEvent.data["unit"].as_string() == unit,
        JobEvent.seq > after,
        JobEvent.seq <= until,
    )
    return session.scalar(statement.order_by(JobEvent.seq).limit(1))
