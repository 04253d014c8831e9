"""A job's events: numbered from 1 without gaps, so that a listener who knows the last number misses nothing.

The number comes from the job's own row, which stays locked until the commit: number n+1 is visible only after n.
Rows are written at the commit (publisher.jobs.numbering), so a transaction does not see the events that it makes.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from publisher.errors import LeaseLost
from publisher.jobs import metrics, numbering
from publisher.store.database import database_now
from publisher.store.models import Job, JobEvent
from publisher.store.states import ACTIVE, EventKind, JobState

Row = dict[str, Any]


@dataclass(frozen=True)
class NewEvent:
    """What is known of an event before it has a number; `at` in seconds since 1970."""

    kind: EventKind
    data: dict[str, Any]
    at: float = field(default_factory=time.time)


def append(session: Session, job_id: str, token: int, events: Sequence[NewEvent]) -> None:
    """Write what the holder of a lease reports. Raises LeaseLost if `token` is not the job's current one."""
    if not events:
        return
    held = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.lease_token == token, Job.state.in_(ACTIVE))
        .values(event_seq=Job.event_seq + len(events))
        .returning(Job.event_seq, Job.tenant_id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if held is None:
        raise LeaseLost(f"lease {token} of {job_id} is over: its events are refused.")
    metrics.keep(session, job_id, _add(session, job_id, held.tenant_id, held.event_seq, events))


def move(
    session: Session,
    job_id: str,
    to: JobState,
    *,
    only_from: Collection[JobState],
    where: Sequence[ColumnElement[bool]] = (),
    **values: Any,
) -> bool:
    """Change the state by compare-and-swap and say so in a `state` event; False if the job is not where expected.

    `where` are further conditions of the swap, `values` columns that change with the state.
    """
    if to is JobState.QUEUED and JobState.QUEUED not in only_from:
        values["queued_at"] = database_now()
    if "waiting" in values:
        values["waiting_kind"] = values["waiting"] and values["waiting"]["kind"]
    moved = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state.in_(only_from), *where)
        .values(state=to, event_seq=Job.event_seq + 1, **values)
        .returning(Job.event_seq, Job.tenant_id, Job.attempt, Job.failure)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if moved is None:
        return False
    data = {"state": to.value, "attempt": moved.attempt}
    if values.get("failure") is not None:
        data["failure"] = moved.failure
    if values.get("waiting") is not None:
        data["waiting"] = values["waiting"]
    _add(session, job_id, moved.tenant_id, moved.event_seq, [NewEvent(EventKind.STATE, data)])
    return True


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
