"""Where feeds of events are, and what comes after a number in each: one job's, or all of a tenant's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Row, Select, select, union_all
from sqlalchemy.orm import Session

from publisher.store.models import Job, JobEvent, Tenant
from publisher.store.states import JobState

_COLUMNS = (
    JobEvent.job_id,
    JobEvent.tenant_id,
    JobEvent.seq,
    JobEvent.number,
    JobEvent.kind,
    JobEvent.at,
    JobEvent.data,
)


def last_of_jobs(session: Session, ids: Collection[str]) -> dict[str, tuple[int, JobState]]:
    """Of those of these jobs that there are: the number of the last event, and the state."""
    rows = session.execute(select(Job.id, Job.event_seq, Job.state).where(Job.id.in_(ids)))
    return {row.id: (row.event_seq, row.state) for row in rows}


def last_of_tenants(session: Session, ids: Collection[str]) -> dict[str, int]:
    """Of those of these tenants that there are: the number of the last event of all their jobs."""
    rows = session.execute(select(Tenant.id, Tenant.event_seq).where(Tenant.id.in_(ids)))
    return {row.id: row.event_seq for row in rows}


def job_events_after(session: Session, after: Mapping[str, int], limit: int) -> list[Row[Any]]:
    """For each job at most `limit` events with a higher `seq`, oldest first."""
    return _rows(
        session,
        [
            select(*_COLUMNS).where(JobEvent.job_id == id, JobEvent.seq > seq).order_by(JobEvent.seq).limit(limit)
            for id, seq in after.items()
        ],
    )


def tenant_events_after(session: Session, after: Mapping[str, int], limit: int) -> list[Row[Any]]:
    """For each tenant at most `limit` events with a higher `number`, oldest first."""
    return _rows(
        session,
        [
            select(*_COLUMNS)
            .where(JobEvent.tenant_id == id, JobEvent.number > number)
            .order_by(JobEvent.number)
            .limit(limit)
            for id, number in after.items()
        ],
    )


def _rows(session: Session, parts: list[Select[Any]]) -> list[Row[Any]]:
    """One statement for all of them: each part is a short range of an index."""
    if len(parts) == 1:
        return list(session.execute(parts[0]))
    return list(session.execute(union_all(*(select(part.subquery()) for part in parts))))
