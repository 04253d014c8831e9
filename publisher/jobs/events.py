"""A job's events: numbered from 1 without gaps, so that a listener who knows the last number misses nothing.

The number comes from the job's own row, which stays locked until the commit: number n+1 is visible only after n.
Rows are written at the commit (publisher.jobs.numbering), so a transaction does not see the events that it makes.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, cast

from sqlalchemy import ColumnElement, Table, or_, select, update
from sqlalchemy.orm import Session

from publisher.errors import LeaseLost
from publisher.jobs import metrics, numbering
from publisher.store.database import database_now
from publisher.store.models import Job, JobEvent
from publisher.store.states import ACTIVE, EventKind, JobState

Row = dict[str, Any]

#: a worker's every report goes by the table: as objects the same statements take thrice as long
JOBS = cast(Table, Job.__table__)
_JOB = JOBS.c


@dataclass(frozen=True)
class NewEvent:
    """What is known of an event before it has a number; `at` in seconds since 1970."""

    kind: EventKind
    data: dict[str, Any]
    at: float = field(default_factory=time.time)


class Moved(NamedTuple):
    """A job's row after its state has changed; `event` is the number of the event that says so."""

    event: int
    tenant_id: str
    variant_id: str
    stage: str | None
    attempt: int
    failure: dict[str, Any] | None
    token: int
    worker: str | None
    started_at: float | None
    lease_expires_at: float | None


@cache
def is_in(states: tuple[JobState, ...]) -> ColumnElement[bool]:
    """Of a job's row. Made once for each use: IN is written out anew each time that it is sent."""
    return or_(*(_JOB.state == state for state in states))


_AFTERWARDS = (
    _JOB.event_seq,
    _JOB.tenant_id,
    _JOB.variant_id,
    _JOB.stage,
    _JOB.attempt,
    _JOB.failure,
    _JOB.lease_token,
    _JOB.worker,
    _JOB.started_at,
    _JOB.lease_expires_at,
)


def begin(session: Session, job: Job) -> None:
    """The first event of a job that was just made with `event_seq` 1: a listener sees it from its start."""
    data = {"state": job.state.value, "attempt": job.attempt}
    _add(session, job.id, job.tenant_id, job.event_seq, [NewEvent(EventKind.STATE, data)])


def append(session: Session, job_id: str, token: int, events: Sequence[NewEvent], **values: Any) -> None:
    """Write what the holder of a lease reports, and `values`, columns of the job, with it. Raises LeaseLost if `token`
    is not the job's current one."""
    if not events and not values:
        return
    held = session.execute(
        update(JOBS)
        .where(_JOB.id == job_id, _JOB.lease_token == token, is_in(ACTIVE))
        .values(event_seq=_JOB.event_seq + len(events), **values)
        .returning(_JOB.event_seq, _JOB.tenant_id)
    ).one_or_none()
    if held is None:
        raise LeaseLost(f"lease {token} of {job_id} is over: what it reports is refused.")
    if events:
        metrics.keep(session, job_id, _add(session, job_id, held.tenant_id, held.event_seq, events))


def move(
    session: Session,
    job_id: str,
    to: JobState,
    *,
    only_from: Collection[JobState],
    where: Sequence[ColumnElement[bool]] = (),
    **values: Any,
) -> Moved | None:
    """Change the state by compare-and-swap and say so in a `state` event; None if the job is not where expected.

    `where` are further conditions of the swap, `values` columns that change with the state.
    """
    if to is JobState.QUEUED and JobState.QUEUED not in only_from:
        values["queued_at"] = database_now()
    if "waiting" in values:
        values["waiting_kind"] = values["waiting"] and values["waiting"]["kind"]
    row = session.execute(
        update(JOBS)
        .where(_JOB.id == job_id, is_in(tuple(only_from)), *where)
        .values(state=to, event_seq=_JOB.event_seq + 1, **values)
        .returning(*_AFTERWARDS)
    ).one_or_none()
    if row is None:
        return None
    moved = Moved(*row)
    data: dict[str, Any] = {"state": to.value, "attempt": moved.attempt}
    if values.get("failure") is not None:
        data["failure"] = moved.failure
    if values.get("waiting") is not None:
        data["waiting"] = values["waiting"]
    _add(session, job_id, moved.tenant_id, moved.event, [NewEvent(EventKind.STATE, data)])
    return moved


def _add(session: Session, job_id: str, tenant_id: str, last: int, events: Sequence[NewEvent]) -> list[Row]:
    first = last - len(events) + 1
    rows = [
        {
            "job_id": job_id,
            "seq": seq,
            "tenant_id": tenant_id,
            "kind": event.kind.value,
            "at": event.at,
            "data": event.data,
        }
        for seq, event in enumerate(events, first)
    ]
    numbering.add(session, rows)
    return rows


def read_after(session: Session, job_id: str, seq: int, limit: int = 500) -> list[JobEvent]:
    """The events with a number above `seq`, oldest first, `limit` at most."""
    statement = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > seq)
    return list(session.scalars(statement.order_by(JobEvent.seq).limit(limit)))
