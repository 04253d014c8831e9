"""Jobs and variants that go: only when nothing runs, or could run, for them any more."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from publisher.errors import Conflict
from publisher.store import deletion
from publisher.store.audit import record
from publisher.store.models import Job, Variant
from publisher.store.states import JobState
from publisher.store.tenancy import hold


def remove_job(session: Session, job: Job) -> None:
    """Conflict unless the job has ended. Its variant stays, and what it published."""
    hold(session, job)
    refuse_live([job])
    record(session, "job.delete", job.id, tenant_id=job.tenant_id, related=job.variant_id, state=job.state.value)
    deletion.delete_job(session, job)


def remove_variant(session: Session, variant: Variant) -> None:
    """With its jobs; Conflict unless they have ended. What was published stays."""
    locked = select(Job).where(Job.variant_id == variant.id).with_for_update()
    refuse_live(session.scalars(locked.execution_options(populate_existing=True)).all())
    deletion.delete_variant(session, variant)


def refuse_live(jobs: Sequence[Job]) -> None:
    """Conflict if one of them has not ended."""
    for job in jobs:
        if not job.state.finished:
            ending = job.state is JobState.CANCELLING
            way_out = "Wait for its end." if ending else f"POST /v1/jobs/{job.id}/cancel first."
            raise Conflict(f"job {job.id} is {job.state}.", way_out=way_out)
