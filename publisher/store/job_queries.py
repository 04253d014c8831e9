"""Lists of jobs, and numbers about them."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from publisher.store.models import Job
from publisher.store.states import JobState
from publisher.store.tenancy import readable_by


def list_jobs(
    session: Session,
    tenant_id: str,
    *,
    states: Collection[JobState] | None = None,
    variant_id: str | None = None,
    before: str | None = None,
    limit: int = 50,
) -> list[Job]:
    """The tenant's jobs, newest first. Ids sort by age: the last one of a page is the next page's `before`."""
    statement = readable_by(tenant_id, Job).order_by(Job.id.desc()).limit(limit)
    if states is not None:
        statement = statement.where(Job.state.in_(states))
    if variant_id is not None:
        statement = statement.where(Job.variant_id == variant_id)
    if before is not None:
        statement = statement.where(Job.id < before)
    return list(session.scalars(statement))


def count_by_state(session: Session) -> dict[JobState, int]:
    """How many jobs of all tenants are in each state; for Prometheus."""
    rows = session.execute(select(Job.state, func.count()).group_by(Job.state))
    counted = dict(rows.all())
    return {state: counted.get(state, 0) for state in JobState}
