"""What a page needs of a job's events, without reading all of them: a long job has tens of thousands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from publisher.recipe.stages import Stage
from publisher.store.models import JobEvent
from publisher.store.states import EventKind


def of_kinds(session: Session, job_id: str, kinds: Sequence[EventKind], until: int) -> list[JobEvent]:
    """All events of these kinds with a number up to `until`, oldest first."""
    statement = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq <= until, JobEvent.kind.in_(kinds))
    return list(session.scalars(statement.order_by(JobEvent.seq)))


class MetricPoint(NamedTuple):
    """`value` is None where it was not a number, `at` seconds since 1970."""

    step: int
    value: float | None
    at: float


def metric_series(session: Session, job_id: str, until: int) -> dict[str, list[MetricPoint]]:
    """Metric name → points by rising step, of events with a number up to `until`.

    A stage that ran again reported its steps again: the last report counts. Taken apart by the database: a job of
    20,000 steps has 60,000 events, and as objects they take four times as long.
    """
    data = JobEvent.data
    columns = data["name"].as_string(), data["step"].as_integer(), data["value"].as_float(), JobEvent.at
    wanted = JobEvent.job_id == job_id, JobEvent.seq <= until, JobEvent.kind == EventKind.METRIC
    series: dict[str, dict[int, MetricPoint]] = {}
    for name, step, value, at in session.execute(select(*columns).where(*wanted).order_by(JobEvent.seq)):
        series.setdefault(name, {})[step] = MetricPoint(step, value, at)
    return {name: [points[step] for step in sorted(points)] for name, points in series.items()}


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
