"""Whose turn it is: of the queued jobs that a worker is for, the most urgent, and of those the oldest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, Row, Select, select, update
from sqlalchemy.orm import Session

from publisher.jobs import leases
from publisher.jobs.events import JOBS
from publisher.jobs.fleet import Fleet, live_fleet
from publisher.jobs.leases import Lease
from publisher.jobs.quotas import Places
from publisher.jobs.shapes import UNKNOWN, fill, read_needs
from publisher.plan.needs import Needs
from publisher.store.database import database_now
from publisher.store.models import Job, Worker
from publisher.store.states import JobState
from publisher.store.tenants import may_begin

#: read at first; more only where the worker is for none of them
_FIRST = 8
#: `dispatched_at` of a job whose message was used up: it is sent again as soon as a worker that it is for is idle
_USED_UP = 0.0

_JOB = JOBS.c
_Queue = Select[str, str | None]
#: by digest, of which a job's needs follow: every turn asks for the same few
_KNOWN: dict[str, Needs] = {}
_MOST_KNOWN = 1024


def due() -> list[ColumnElement[bool]]:
    """Of jobs that may be claimed now: those of a suspended tenant wait."""
    return [_JOB.state == JobState.QUEUED, _JOB.claimable_at <= database_now(), may_begin()]


def take(session: Session, named: str, worker: str, lease_seconds: float) -> Lease | None:
    """The lease of the job whose turn it is on `worker`, which got a message that names one; None if there is none.

    The message is a hint that something waits. Jobs that are too large for this worker stay queued, at no cost, and so
    do those of a tenant that has as many running as it may.
    """
    places = Places(session)
    waiting = _allowed(places)
    first = _first(session, waiting)
    if named not in (row.id for row in first):
        settled = _settling(session, named, worker, lease_seconds)
        if settled is not None:
            return settled
    fleet = live_fleet(session, lease_seconds, and_also=worker)
    me = next((each for each in fleet.workers if each.id == worker), None)
    if me is None:  # nobody knows what it holds: the database was made anew under it
        return leases.claim(session, named, worker, lease_seconds) if places.has_room(named) else None
    for job_id in _suited(session, me, fleet, first, waiting):
        lease = leases.claim(session, job_id, worker, lease_seconds) if places.has_room(job_id) else None
        if lease is not None:
            break
    else:
        lease = None
    if lease is None or lease.job_id != named:
        _let_send_again(session, named)
    return lease


def turns(session: Session, worker: Worker, fleet: Fleet, *where: ColumnElement[bool]) -> Iterator[str]:
    """Ids of the jobs that `worker` is for, those whose turn comes first at first; `where`: further conditions.

    Without those of tenants that have as many running as they may: others' come before them.
    """
    waiting = _allowed(Places(session)).where(*where)
    yield from _suited(session, worker, fleet, _first(session, waiting), waiting)


#: those that wait, without what each needs: there are few kinds of jobs
_WAITING = select(_JOB.id, _JOB.needs_digest).where(*due()).order_by(_JOB.precedence, _JOB.id)
_FIRST_WAITING = _WAITING.limit(_FIRST)


def _allowed(places: Places) -> _Queue:
    full = places.full_tenants()
    return _WAITING.where(_JOB.tenant_id.not_in(full)) if full else _WAITING


def _first(session: Session, waiting: _Queue) -> Sequence[Row[str, str | None]]:
    return session.execute(_FIRST_WAITING if waiting is _WAITING else waiting.limit(_FIRST)).all()


def _suited(
    session: Session, worker: Worker, fleet: Fleet, first: Sequence[Row[str, str | None]], waiting: _Queue
) -> Iterator[str]:
    """Of `waiting`, of which `first` are the first."""
    suits: dict[str | None, bool] = {}

    def is_for(job_id: str, digest: str | None) -> bool:
        if digest is None or digest not in suits:
            suits[digest] = fleet.suits(worker, needs_of(session, job_id, digest))
        return suits[digest]

    yield from (job_id for job_id, digest in first if is_for(job_id, digest))
    if len(first) == _FIRST:
        others = session.execute(waiting.offset(_FIRST)).all()
        yield from (job_id for job_id, digest in others if is_for(job_id, digest))


def _settling(session: Session, named: str, worker: str, lease_seconds: float) -> Lease | None:
    """Of a job that is not queued: whatever else may be claimed of it."""
    if session.scalar(select(_JOB.state).where(_JOB.id == named)) is JobState.QUEUED:
        return None
    return leases.claim(session, named, worker, lease_seconds)


def needs_of(session: Session, job_id: str, digest: str | None) -> Needs | None:
    """Of a job; worked out and kept for one that has none yet."""
    if digest is None:
        return fill(session, job_id)
    if digest == UNKNOWN:
        return None
    if digest not in _KNOWN:
        needs = read_needs(session.scalar(select(_JOB.needs).where(_JOB.id == job_id)))
        if needs is None:  # of another version, or the job is gone
            return None
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[digest] = needs
    return _KNOWN[digest]


def _let_send_again(session: Session, job_id: str) -> None:
    """Its message is gone, and it is still queued: too large for this worker, or another came first."""
    session.execute(
        update(Job)
        .where(Job.id == job_id, *due())
        .values(dispatched_at=_USED_UP)
        .execution_options(synchronize_session=False)
    )
