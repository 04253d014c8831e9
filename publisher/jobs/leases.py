"""Who may work on a job: one worker at a time, for as long as it renews its lease, known by its fencing token.

A token is never given out twice for a job, and every write of a worker names its own in the same statement that
changes the row: what a worker writes that was thought dead is refused, whatever its clock says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, case, select, update
from sqlalchemy.orm import Session

from publisher.errors import LeaseLost
from publisher.jobs import attempts, events
from publisher.jobs.publishing import publish_has_begun
from publisher.store.database import database_now
from publisher.store.models import Job
from publisher.store.states import ACTIVE, EventKind, JobState


@dataclass(frozen=True)
class Lease:
    job_id: str
    token: int


@dataclass(frozen=True)
class LeaseStatus:
    """Seconds since somebody asked for the job's end, or for a pause that it is to take; None if nobody did."""

    state: JobState
    cancelling_for: float | None
    pausing_for: float | None

    @property
    def stopping_for(self) -> float | None:
        return self.pausing_for if self.cancelling_for is None else self.cancelling_for


def claim(session: Session, job_id: str, worker: str, seconds: float) -> Lease | None:
    """Take a queued job whose time has come; None if another worker was faster or there is nothing to do."""
    now = database_now()
    claimed = events.move(
        session,
        job_id,
        JobState.RUNNING,
        only_from=[JobState.QUEUED],
        where=[Job.claimable_at <= now],
        lease_token=Job.lease_token + 1,
        lease_expires_at=now + seconds,
        worker=worker,
        attempt=Job.attempt + 1,
        stage=None,
        stages={},
        started_at=now,
        failure=None,
        waiting=None,
    )
    if not claimed:
        return None
    return Lease(job_id, attempts.begin(session, job_id))


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


def status(session: Session, lease: Lease) -> LeaseStatus:
    """How the job stands, without renewing. Raises LeaseLost."""
    pauses = and_(Job.state == JobState.PAUSING, ~publish_has_begun())
    cancelling_for = database_now() - Job.cancel_requested_at
    pausing_for = database_now() - case((pauses, Job.pause_requested_at))
    holds = (Job.id == lease.job_id, Job.lease_token == lease.token, Job.state.in_(ACTIVE))
    row = session.execute(select(Job.state, cancelling_for, pausing_for).where(*holds)).one_or_none()
    if row is None:
        raise lost(lease)
    return LeaseStatus(row[0], row[1], row[2])


def hold(session: Session, lease: Lease) -> Job:
    """The job, locked until the transaction ends. Raises LeaseLost."""
    holds = (Job.id == lease.job_id, Job.lease_token == lease.token, Job.state.in_(ACTIVE))
    job = session.scalar(select(Job).where(*holds).with_for_update().execution_options(populate_existing=True))
    if job is None:
        raise lost(lease)
    return job


def report(
    session: Session,
    lease: Lease,
    new_events: Sequence[events.NewEvent],
    stage: str | None,
    stages: Mapping[str, Any],
) -> None:
    """Append events and show where the job is: `stages` maps a stage to {"state", "seconds"}. Raises LeaseLost."""
    events.append(session, lease.job_id, lease.token, new_events)
    goes_on = {"waiting_since": None} if any(_ends_a_stage(event) for event in new_events) else {}
    shown = session.scalar(
        update(Job)
        .where(Job.id == lease.job_id, Job.lease_token == lease.token, Job.state.in_(ACTIVE))
        .values(stage=stage, stages=dict(stages), **goes_on)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    if shown is None:
        raise lost(lease)


def _ends_a_stage(event: events.NewEvent) -> bool:
    return event.kind is EventKind.STAGE and event.data["state"] == "finished"


def lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"lease {lease.token} of {lease.job_id} is over: another worker has the job, or nobody.")
