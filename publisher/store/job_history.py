"""What a page needs of a job's events, without reading all of them: a long job has tens of thousands."""

from __future__ import annotations

from sqlalchemy import literal_column, select
from sqlalchemy.orm import Session

from publisher.errors import NotFound
from publisher.recipe.stages import Stage
from publisher.store.models import JobAttempt, JobEvent
from publisher.store.states import EventKind


def has_computed(session: Session, job_id: str) -> bool:
    """Whether a stage of this job that takes long was finished, in whatever try."""
    computed = JobEvent.data["stage"].as_string().in_([Stage.PRUNE, Stage.ALIGN, Stage.EVALUATE])
    done = JobEvent.data["state"].as_string().in_(["finished", "reused"])
    statement = select(JobEvent.seq).where(JobEvent.job_id == job_id, JobEvent.kind == EventKind.STAGE, computed, done)
    return session.scalar(statement.limit(1)) is not None


def last_of_kind(session: Session, job_id: str, kind: EventKind, until: int, limit: int) -> list[JobEvent]:
    """The last `limit` events of this kind with a number up to `until`, oldest first."""
    statement = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq <= until, JobEvent.kind == kind)
    return list(session.scalars(statement.order_by(JobEvent.seq.desc()).limit(limit)))[::-1]


#: written out, so that a database sees that the index of logs alone will do
_IS_LOG = JobEvent.kind == literal_column("'log'")


def log_after(session: Session, job_id: str, seq: int, until: int, limit: int) -> list[JobEvent]:
    """The first `limit` lines of the log with a number above `seq` and up to `until`, oldest first."""
    lines = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > seq, JobEvent.seq <= until, _IS_LOG)
    return list(session.scalars(lines.order_by(JobEvent.seq).limit(limit)))


def attempts_before(session: Session, job_id: str, number: int | None, limit: int) -> list[JobAttempt]:
    """The newest `limit` attempts with a number below `number`, if there is one, newest first."""
    tried = select(JobAttempt).where(JobAttempt.job_id == job_id)
    if number is not None:
        tried = tried.where(JobAttempt.number < number)
    return list(session.scalars(tried.order_by(JobAttempt.number.desc()).limit(limit)))


def attempt_of(session: Session, job_id: str, number: int) -> JobAttempt:
    """NotFound if the job has had no such attempt."""
    found = session.get(JobAttempt, (job_id, number))
    if found is None:
        way_out = f"GET /v1/jobs/{job_id}/attempts lists them."
        raise NotFound(f"job {job_id} has no attempt {number}.", way_out=way_out)
    return found


def first_progress_after(session: Session, last: JobEvent, after: int) -> JobEvent:
    """The first progress of the same stage in the same unit as `last`, with a number above `after`: a stage may count
    two things."""
    statement = select(JobEvent).where(
        JobEvent.job_id == last.job_id,
        JobEvent.kind == EventKind.PROGRESS,
        JobEvent.data["stage"].as_string() == last.data["stage"],
        JobEvent.data["unit"].as_string() == last.data["unit"],
        JobEvent.seq > after,
        JobEvent.seq <= last.seq,
    )
    return session.scalar(statement.order_by(JobEvent.seq).limit(1)) or last
