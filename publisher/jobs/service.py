"""What a person can do to a job: have one queued, cancel it, retry it. The caller dispatches after the commit."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from publisher.errors import Conflict
from publisher.jobs import events
from publisher.jobs.shapes import shape_of
from publisher.store.database import database_now
from publisher.store.models import Job, Variant
from publisher.store.states import JobState
from publisher.store.variant_content import Unreadable, recipe_of


def enqueue(session: Session, variant: Variant, priority: int = 0) -> Job:
    """A queued job for a variant; after the commit hand its id to `Dispatcher.send`. Higher `priority` comes first."""
    job = Job(tenant_id=variant.tenant_id, variant_id=variant.id, precedence=-priority, **shape_of(session, variant))
    session.add(job)
    session.flush()
    # queued → queued: the first event, so that a listener sees the job from its start
    events.move(session, job.id, JobState.QUEUED, only_from=[JobState.QUEUED])
    return _reload(session, job.id)


def cancel(session: Session, job_id: str) -> Job:
    """Queued: cancelled at once. Running: cancelling, and the worker stops within seconds.

    Cancelling twice changes nothing; Conflict if the job already succeeded or failed.
    """
    now = database_now()
    at_once: dict[str, Any] = {"cancel_requested_at": now, "finished_at": now, "waiting": None}
    if events.move(session, job_id, JobState.CANCELLED, only_from=[JobState.QUEUED], **at_once):
        return _reload(session, job_id)
    if events.move(session, job_id, JobState.CANCELLING, only_from=[JobState.RUNNING], cancel_requested_at=now):
        return _reload(session, job_id)
    job = _reload(session, job_id)
    if job.state in {JobState.SUCCEEDED, JobState.FAILED}:
        way_out = "Only a queued or running job can be cancelled."
        raise Conflict(f"job {job_id} has already {job.state}.", way_out=way_out)
    return job


def retry(session: Session, job_id: str) -> Job:
    """A failed or cancelled job is queued again with all its tries; finished stages are reused.

    Conflict in any other state, and for a recipe of another version that cannot be read. After the commit hand its id
    to `Dispatcher.send`.
    """
    job = _reload(session, job_id)
    _refuse_unreadable(job)
    fresh: dict[str, Any] = {
        **shape_of(session, job.variant),
        "attempt": 0,
        "stage": None,
        "stages": {},
        "failure": None,
        "waiting": None,
        "waiting_since": None,
        "worker": None,
        "dispatched_at": None,
        "claimable_at": 0.0,
        "cancel_requested_at": None,
        "started_at": None,
        "finished_at": None,
    }
    if not events.move(session, job_id, JobState.QUEUED, only_from=[JobState.FAILED, JobState.CANCELLED], **fresh):
        state = _reload(session, job_id).state
        raise Conflict(f"job {job_id} is {state}.", way_out="Only a failed or cancelled job can be retried.")
    return _reload(session, job_id)


def _refuse_unreadable(job: Job) -> None:
    recipe = recipe_of(job.variant)
    if isinstance(recipe, Unreadable) and job.state in {JobState.FAILED, JobState.CANCELLED}:
        raise Conflict(f"job {job.id} cannot be retried: {recipe.reason}", field="recipe")


def _reload(session: Session, job_id: str) -> Job:
    return session.get_one(Job, job_id, populate_existing=True)
