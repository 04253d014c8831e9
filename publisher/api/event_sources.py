"""Where streams of events come from: one job's by its own numbers, or all of a tenant's by the tenant's numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pydantic_core import to_json
from sqlalchemy import Row
from sqlalchemy.orm import Session

from publisher.store import event_feeds


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


class JobSource:
    """The events of one job."""

    def positions(self, session: Session, ids: Collection[str]) -> dict[str, Position]:
        found = event_feeds.last_of_jobs(session, ids)
        return {id: Position(last, state.finished) for id, (last, state) in found.items()}

    def read(self, session: Session, after: Mapping[str, int], limit: int) -> list[Entry]:
        rows = event_feeds.job_events_after(session, after, limit)
        return [_entry(row.job_id, row.seq, row, {"at": row.at}) for row in rows]


class TenantSource:
    """The events of all jobs of a tenant; each says which job's it is, and its number there."""

    def positions(self, session: Session, ids: Collection[str]) -> dict[str, Position]:
        found = event_feeds.last_of_tenants(session, ids)
        return {id: Position(last, ended=False) for id, last in found.items()}

    def read(self, session: Session, after: Mapping[str, int], limit: int) -> list[Entry]:
        rows = event_feeds.tenant_events_after(session, after, limit)
        return [
            _entry(row.tenant_id, row.number, row, {"at": row.at, "job_id": row.job_id, "seq": row.seq}) for row in rows
        ]


JOB, TENANT = JobSource(), TenantSource()
SOURCES: tuple[Source, ...] = (JOB, TENANT)


def _entry(feed_id: str, number: int, row: Row[Any], also: Mapping[str, Any]) -> Entry:
    data = to_json({**row.data, **also}, inf_nan_mode="null")
    sent = b"id: %d\nevent: %s\ndata: %s\n\n" % (number, row.kind.encode(), data)
    return Entry(feed_id, number, row.job_id, row.kind, sent)
