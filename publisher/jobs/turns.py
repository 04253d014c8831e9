"""Whose turn it is: of the queued jobs that a worker is for, the most urgent, and of those the oldest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from publisher.jobs import leases
from publisher.jobs.fleet import Fleet, live_fleet
from publisher.jobs.leases import Lease
from publisher.jobs.shapes import fill, read_needs
from publisher.plan.needs import Needs
from publisher.store.database import database_now
from publisher.store.models import Job, Worker
from publisher.store.states import JobState
from publisher.store.tenants import may_begin

#: read at first; more only where the worker is for none of them
_FIRST = 8
#: `dispatched_at` of a job whose message was used up: it is sent again as soon as a worker that it is for is idle
_USED_UP = 0.0


def take(session: Session, named: str, worker: str, lease_seconds: float) -> Lease | None:
    """The lease of the job whose turn it is on `worker`, which got a message that names one; None if there is none.

    The message is a hint that something waits. Jobs that are too large for this worker stay queued, at no cost.
    """
    state = session.scalar(select(Job.state).where(Job.id == named))
    if state is not JobState.QUEUED:  # whatever may be claimed of it otherwise
        settled = leases.claim(session, named, worker, lease_seconds)
        if settled is not None:
            return settled
    fleet = live_fleet(session, lease_seconds, and_also=worker)
    me = next((each for each in fleet.workers if each.id == worker), None)
    if me is None:  # nobody knows what it holds: the database was made anew under it
        return leases.claim(session, named, worker, lease_seconds)
    for job_id in turns(session, me, fleet):
        lease = leases.claim(session, job_id, worker, lease_seconds)
        if lease is not None:
            break
    else:
        lease = None
    if lease is None or lease.job_id != named:
        _let_send_again(session, named)
    return lease


def due() -> list[ColumnElement[bool]]:
    """Of jobs that may be claimed now: those of a suspended tenant wait."""
    return [Job.state == JobState.QUEUED, Job.claimable_at <= database_now(), may_begin()]


def turns(session: Session, worker: Worker, fleet: Fleet, *where: ColumnElement[bool]) -> Iterator[str]:
    """Ids of the jobs that `worker` is for, those whose turn comes first at first; `where`: further conditions."""
    suits: dict[str | None, bool] = {}

    def is_for(job_id: str, digest: str | None, needs: dict[str, Any] | None = None) -> bool:
        if digest is None or digest not in suits:
            known = read_needs(needs) if needs is not None else needs_of(session, job_id, digest)
            suits[digest] = fleet.suits(worker, known)
        return suits[digest]

    waiting = select(Job.id, Job.needs_digest, Job.needs).where(*due(), *where).order_by(Job.precedence, Job.id)
    first = session.execute(waiting.limit(_FIRST)).all()
    yield from (job_id for job_id, digest, needs in first if is_for(job_id, digest, needs))
    if len(first) == _FIRST:  # without what each needs: there are few kinds of jobs
        others = session.execute(waiting.with_only_columns(Job.id, Job.needs_digest).offset(_FIRST)).all()
        yield from (job_id for job_id, digest in others if is_for(job_id, digest))


def needs_of(session: Session, job_id: str, digest: str | None) -> Needs | None:
    """Of a job; worked out and kept for one that has none yet."""
    if digest is None:
        return fill(session, job_id)
    return read_needs(session.scalar(select(Job.needs).where(Job.id == job_id)))


def _let_send_again(session: Session, job_id: str) -> None:
    """Its message is gone, and it is still queued: too large for this worker, or another came first."""
    session.execute(
        update(Job)
        .where(Job.id == job_id, *due())
        .values(dispatched_at=_USED_UP)
        .execution_options(synchronize_session=False)
    )
