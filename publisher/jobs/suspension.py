"""What becomes of a suspended tenant's jobs: queued ones wait, running ones are paused, and all go on afterwards, as do
deliveries to its webhooks.

A job whose commit may have been sent is past pausing: it ends its publication, so that what the Hub has and what the
service says agree.
"""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from publisher.errors import Conflict
from publisher.jobs import service
from publisher.store import webhook_deliveries
from publisher.store.audit import record
from publisher.store.models import Job, Tenant
from publisher.store.states import JobState


def pause_running(session: Session) -> list[str]:
    """Have the running jobs of suspended tenants pause; their ids. A job that was claimed just before the suspension is
    found by the next call: the reaper calls again and again."""
    of_suspended = Job.tenant_id.in_(select(Tenant.id).where(Tenant.suspended_at.is_not(None)))
    found = select(Job.id).where(of_suspended, Job.state == JobState.RUNNING, Job.publishing.is_(None))
    paused = []
    for id in session.scalars(found.order_by(Job.id)).all():
        try:
            service.pause(session, id, where=[of_suspended])
        except Conflict:  # it has ended, begun to publish, or its tenant was resumed, at this moment
            continue
        paused.append(id)
    return paused


def resume_tenant(session: Session, tenant: Tenant) -> list[str]:
    """End a suspension; the ids of the jobs that it had paused and that are to be sent again after the commit. Those
    that somebody had paused before stay paused.

    `tenant` is not locked yet: workers take their job's row first, and wait for the tenant's with it."""
    if tenant.suspended_at is None:
        return []
    held = select(Job.id).where(
        Job.tenant_id == tenant.id,
        Job.state.in_([JobState.PAUSED, JobState.PAUSING]),
        Job.pause_requested_at >= tenant.suspended_at,
    )
    ids = session.scalars(held.order_by(Job.id)).all()
    queued = [id for id in ids if service.go_on(session, id).state is JobState.QUEUED]
    suspended = [Tenant.id == tenant.id, Tenant.suspended_at.is_not(None)]
    if session.scalar(update(Tenant).where(*suspended).values(suspended_at=None).returning(Tenant.id)):
        record(session, "tenant.resume", tenant.id, tenant_id=tenant.id)
        webhook_deliveries.let_out(session, tenant.id)
    return queued
