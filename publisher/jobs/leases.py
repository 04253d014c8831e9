"""Who may work on a job: one worker at a time, for as long as it renews its lease, known by its fencing token.

A token is never given out twice for a job, and every write of a worker names its own in the same statement that
changes the row: what a worker writes that was thought dead is refused, whatever its clock says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, case, func, select, update
from sqlalchemy.orm import Session

from publisher.errors import JobCancelled, JobPaused, LeaseLost
from publisher.jobs import attempts, events
from publisher.jobs.events import JOBS, is_in
from publisher.jobs.publishing import Intent
from publisher.store.database import database_now
from publisher.store.models import Job
from publisher.store.states import ACTIVE, EventKind, JobState
from publisher.store.tenants import may_begin


@dataclass(frozen=True)
class Lease:
    """`expires_at`: what the claim says, by which somebody else's renewal is told; None where it is not known."""

    job_id: str
    token: int
    expires_at: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class LeaseStatus:
    """`stopping_for`: seconds since somebody asked for the job's end, or for a pause; None if nobody did. `publishing`:
    its commit may have been sent, so that nothing but the Hub's answer can end it."""

    state: JobState
    stopping_for: float | None
    publishing: bool


def unsettled() -> ColumnElement[bool]:
    """To be cancelled as soon as somebody has found out whether it has published already; nobody does so now."""
    return and_(Job.state == JobState.CANCELLING, Job.lease_expires_at.is_(None))


def claim(session: Session, job_id: str, worker: str, seconds: float) -> Lease | None:
    """Take a queued job whose time has come; None if another worker was faster or there is nothing to do."""
    now = database_now()
    due = [Job.claimable_at <= now]
    ready = [*due, may_begin()]
    held: dict[str, Any] = {
        "lease_token": Job.lease_token + 1,
        "lease_expires_at": now + seconds,
        "worker": worker,
        "waiting": None,
    }
    afresh: dict[str, Any] = {
        "attempt": Job.attempt + 1,
        "stage": None,
        "stages": {},
        "started_at": now,
        "failure": None,
    }
    unsure = [*due, Job.lease_expires_at.is_(None)]
    begun = func.coalesce(Job.started_at, now)  # a retry may have been cancelled before it began
    claimed = events.move(
        session, job_id, JobState.RUNNING, only_from=[JobState.QUEUED], where=ready, **held, **afresh
    ) or events.move(
        session, job_id, JobState.CANCELLING, only_from=[JobState.CANCELLING], where=unsure, started_at=begun, **held
    )
    if claimed is None:
        return None
    return Lease(job_id, attempts.begin(session, job_id, claimed), claimed.lease_expires_at)


def renew(session: Session, lease: Lease, seconds: float) -> JobState:
    """Hold the job for `seconds` more; returns running, pausing or cancelling. Raises LeaseLost."""
    state = session.scalar(
        update(Job)
        .where(Job.id == lease.job_id, Job.lease_token == lease.token, Job.state.in_(ACTIVE))
        .values(lease_expires_at=database_now() + seconds)
        .returning(Job.state)
        .execution_options(synchronize_session=False)
    )
    if state is None:
        raise lost(lease)
    return state


def renew_unheard(session: Session, lease: Lease, seconds: float) -> Lease | None:
    """Hold the job for `seconds` more for a process that has not done so itself yet; None if it has, or the lease is
    over."""
    expires_at = session.scalar(
        update(JOBS)
        .where(JOBS.c.id == lease.job_id, JOBS.c.lease_token == lease.token, is_in(ACTIVE))
        .where(JOBS.c.lease_expires_at == lease.expires_at)
        .values(lease_expires_at=database_now() + seconds)
        .returning(JOBS.c.lease_expires_at)
    )
    return None if expires_at is None else replace(lease, expires_at=expires_at)


def status(session: Session, lease: Lease) -> LeaseStatus:
    """How the job stands, without renewing. Raises LeaseLost."""
    asked_at = case((Job.state == JobState.PAUSING, Job.pause_requested_at), else_=Job.cancel_requested_at)
    asked_ago = database_now() - asked_at
    holds = (Job.id == lease.job_id, Job.lease_token == lease.token, Job.state.in_(ACTIVE))
    row = session.execute(select(Job.state, asked_ago, Job.publishing.is_not(None)).where(*holds)).one_or_none()
    if row is None:
        raise lost(lease)
    state, stopping_for, publishing = row
    return LeaseStatus(state, stopping_for, bool(publishing))


def intend(session: Session, lease: Lease, intent: Intent) -> None:
    """Write down that this commit is sent next: the point of no return.

    Raises JobCancelled or JobPaused, after which nothing may be sent, if somebody asked for that before; LeaseLost.
    """
    recorded = session.scalar(
        update(Job)
        .where(Job.id == lease.job_id, Job.lease_token == lease.token, Job.state == JobState.RUNNING)
        .where(Job.lease_expires_at > database_now())
        .values(publishing=intent.as_json())
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    if recorded is not None:
        return
    state = status(session, lease).state
    if state is JobState.RUNNING:
        raise lost(lease)
    if state is JobState.PAUSING:
        raise JobPaused(f"{lease.job_id} is to pause before anything is published.")
    raise JobCancelled(f"{lease.job_id} was cancelled before anything was published.")


def withdraw(session: Session, lease: Lease) -> None:
    """The Hub has said that it did not take the commit. Raises LeaseLost."""
    withdrawn = session.scalar(
        update(Job)
        .where(Job.id == lease.job_id, Job.lease_token == lease.token, Job.state.in_(ACTIVE))
        .values(publishing=None)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    if withdrawn is None:
        raise lost(lease)


class Held(NamedTuple):
    """What decides how a try ends, of the job's row."""

    id: str
    variant_id: str
    state: JobState
    stage: str | None
    attempt: int
    publishing: dict[str, Any] | None
    waiting_since: float | None


_HELD = select(*(JOBS.c[name] for name in Held._fields)).with_for_update()


def hold(session: Session, lease: Lease) -> Held:
    """The job, locked until the transaction ends. Raises LeaseLost."""
    holds = (JOBS.c.id == lease.job_id, JOBS.c.lease_token == lease.token, is_in(ACTIVE))
    row = session.execute(_HELD.where(*holds)).one_or_none()
    if row is None:
        raise lost(lease)
    return Held(*row)


def job_of(session: Session, lease: Lease) -> Job:
    """The job, whether the lease is still held or not."""
    return session.get_one(Job, lease.job_id)


def report(
    session: Session,
    lease: Lease,
    new_events: Sequence[events.NewEvent],
    stage: str | None,
    stages: Mapping[str, Any],
) -> None:
    """Append events and show where the job is: `stages` maps a stage to {"state", "seconds"}. Raises LeaseLost."""
    goes_on = {"waiting_since": None} if any(_ends_a_stage(event) for event in new_events) else {}
    events.append(session, lease.job_id, lease.token, new_events, stage=stage, stages=dict(stages), **goes_on)


def _ends_a_stage(event: events.NewEvent) -> bool:
    return event.kind is EventKind.STAGE and event.data["state"] == "finished"


def lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"lease {lease.token} of {lease.job_id} is over: another worker has the job, or nobody.")
