"""Where streams of events come from: one job's by its own numbers, or all of a tenant's by the tenant's numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pydantic_core import to_json
from sqlalchemy import Row, Select, select, union_all
from sqlalchemy.orm import Session

from publisher.store.models import Job, JobEvent, Tenant


@dataclass(frozen=True)
class Entry:
    """An event as it is sent. `number` counts within its feed: it is what a listener resumes by."""

    feed_id: str
    number: int
    job_id: str
    kind: str
    sent: bytes


class Position(NamedTuple):
    """The number of a feed's last event, and whether none can come after it as things are."""

    last: int
    ended: bool


class Source(Protocol):
    """Feeds of one kind, each known by an id."""

    def positions(self, session: Session, ids: Collection[str]) -> dict[str, Position]:
        """Where these feeds are; what is missing does not exist (any more)."""

    def read(self, session: Session, after: Mapping[str, int], limit: int) -> list[Entry]:
        """For each feed at most `limit` events after this number, in the order of their numbers."""


_COLUMNS = (
    JobEvent.job_id,
    JobEvent.tenant_id,
    JobEvent.seq,
    JobEvent.number,
    JobEvent.kind,
    JobEvent.at,
    JobEvent.data,
)


class JobSource:
    """The events of one job."""

    def positions(self, session: Session, ids: Collection[str]) -> dict[str, Position]:
        rows = session.execute(select(Job.id, Job.event_seq, Job.state).where(Job.id.in_(ids)))
        return {row.id: Position(row.event_seq, row.state.finished) for row in rows}

    def read(self, session: Session, after: Mapping[str, int], limit: int) -> list[Entry]:
        parts = [
            select(*_COLUMNS).where(JobEvent.job_id == id, JobEvent.seq > seq).order_by(JobEvent.seq).limit(limit)
            for id, seq in after.items()
        ]
        return [_entry(row.job_id, row.seq, row, {"at": row.at}) for row in _rows(session, parts)]


class TenantSource:
    """The events of all jobs of a tenant; each says which job's it is, and its number there."""

    def positions(self, session: Session, ids: Collection[str]) -> dict[str, Position]:
        rows = session.execute(select(Tenant.id, Tenant.event_seq).where(Tenant.id.in_(ids)))
        return {row.id: Position(row.event_seq, ended=False) for row in rows}

    def read(self, session: Session, after: Mapping[str, int], limit: int) -> list[Entry]:
        parts = [
            select(*_COLUMNS)
            .where(JobEvent.tenant_id == id, JobEvent.number > number)
            .order_by(JobEvent.number)
            .limit(limit)
            for id, number in after.items()
        ]
        rows = _rows(session, parts)
        return [
            _entry(row.tenant_id, row.number, row, {"at": row.at, "job_id": row.job_id, "seq": row.seq}) for row in rows
        ]


JOB, TENANT = JobSource(), TenantSource()
SOURCES: tuple[Source, ...] = (JOB, TENANT)


def _rows(session: Session, parts: list[Select[Any]]) -> list[Row[Any]]:
    """One statement for all of them: each part is a short range of an index."""
    if len(parts) == 1:
        return list(session.execute(parts[0]))
    return list(session.execute(union_all(*(select(part.subquery()) for part in parts))))


def _entry(feed_id: str, number: int, row: Row[Any], also: Mapping[str, Any]) -> Entry:
    data = to_json({**row.data, **also}, inf_nan_mode="null")
    sent = b"id: %d\nevent: %s\ndata: %s\n\n" % (number, row.kind.encode(), data)
    return Entry(feed_id, number, row.job_id, row.kind, sent)
