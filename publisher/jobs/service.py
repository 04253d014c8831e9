"""What a person can do to a job: have one queued, pause, resume, cancel, retry. The caller dispatches afterwards."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, update
from sqlalchemy.orm import Session

from publisher.errors import Conflict, NotFound
from publisher.jobs import events
from publisher.jobs.publishing import publish_has_begun
from publisher.jobs.quotas import refuse_over_queue
from publisher.jobs.shapes import shape_of
from publisher.jobs.waiting import WaitKind
from publisher.store.audit import record
from publisher.store.database import database_now
from publisher.store.models import Job, Variant, new_id
from publisher.store.states import JobState
from publisher.store.variant_content import Unreadable, recipe_of
from publisher.tracing import spans

_WITHOUT_WORKER = (JobState.QUEUED, JobState.PAUSED)
_WITH_WORKER = (JobState.RUNNING, JobState.PAUSING)


def enqueue(session: Session, variant: Variant, priority: int = 0, id: str | None = None, *, sent: bool = False) -> Job:
    """A queued job for a variant; after the commit hand its id to `Dispatcher.send`. Higher `priority` comes first.

    `id`: a new one, if it matters. `sent`: marked as sent; after the commit hand it to `Dispatcher.hand_over`.
    QuotaExceeded where the tenant has as many queued as it may.
    """
    refuse_over_queue(session, variant.tenant_id)
    job = Job(
        id=id or new_id(Job.id_kind),
        tenant_id=variant.tenant_id,
        variant_id=variant.id,
        precedence=-priority,
        event_seq=1,
        dispatched_at=database_now() if sent else None,
        traceparent=spans.current(),
        **shape_of(session, variant),
    )
    session.add(job)
    if variant in session:  # who answers with it reads its jobs without asking again
        job.variant = variant
    session.flush()
    events.begin(session, job)
    record(
        session,
        "variant.create",
        variant.id,
        tenant_id=variant.tenant_id,
        related=job.id,
        repo_id=variant.publish_repo_id,
        base_model_id=variant.base_model_id,
        recipe_digest=variant.recipe_digest,
        sweep_id=variant.sweep_id,
    )
    return job


def cancel(session: Session, job_id: str) -> Job:
    """Queued or paused: cancelled at once. Running: cancelling, and the worker stops within seconds.

    A job whose commit may have been sent is cancelling until the Hub was asked: it has succeeded if it was.
    Cancelling twice changes nothing; Conflict if the job already succeeded or failed.
    """
    now = database_now()
    at_once: dict[str, Any] = {"cancel_requested_at": now, "finished_at": now, "waiting": None, "waiting_since": None}
    unsent, states = [~publish_has_begun()], [*_WITH_WORKER, JobState.QUEUED]
    if events.move(session, job_id, JobState.CANCELLED, only_from=_WITHOUT_WORKER, where=unsent, **at_once):
        return _done(session, "cancel", job_id)
    if events.move(session, job_id, JobState.CANCELLING, only_from=states, cancel_requested_at=now):
        return _done(session, "cancel", job_id)
    job = _reload(session, job_id)
    if job.state in {JobState.SUCCEEDED, JobState.FAILED}:
        way_out = "Only a job that has not ended can be cancelled."
        raise Conflict(f"job {job_id} has already {job.state}.", way_out=way_out)
    return job


def pause(session: Session, job_id: str, *, where: Sequence[ColumnElement[bool]] = ()) -> Job:
    """Queued: paused at once. Running: pausing, and the worker stops within seconds with its state saved.

    Pausing twice changes nothing. Conflict if the job has ended, is being cancelled, or publishes already, or `where`
    does not hold of it.
    """
    conditions = [~publish_has_begun(), *where]
    now = database_now()
    aside: dict[str, Any] = {"pause_requested_at": now, "waiting": None, "waiting_since": None, "dispatched_at": None}
    if events.move(session, job_id, JobState.PAUSED, only_from=[JobState.QUEUED], where=conditions, **aside):
        return _done(session, "pause", job_id)
    asked = {"pause_requested_at": now}
    if events.move(session, job_id, JobState.PAUSING, only_from=[JobState.RUNNING], where=conditions, **asked):
        return _done(session, "pause", job_id)
    job = _reload(session, job_id)
    if job.state not in {JobState.PAUSING, JobState.PAUSED}:
        raise _not_paused(job)
    return job


def _not_paused(job: Job) -> Conflict:
    if job.state in {JobState.QUEUED, JobState.RUNNING} and job.publishing is not None:
        way_out = "Publishing takes minutes: wait for its end, or cancel it."
        return Conflict(f"job {job.id} publishes: what it made may be on the Hub already.", way_out=way_out)
    return Conflict(f"job {job.id} is {job.state}.", way_out="Only a queued or running job can be paused.")


def resume(session: Session, job_id: str) -> Job:
    """A paused job is queued again in its old place, and goes on from what it saved; one that is still pausing runs on.

    Of one that was queued or running nothing changes. Conflict if it has ended or is being cancelled, QuotaExceeded
    where the tenant has as many queued as it may. After the commit hand its id to `Dispatcher.send`.
    """
    _refuse_over_queue(session, job_id, [JobState.PAUSED])
    return go_on(session, job_id)


def go_on(session: Session, job_id: str) -> Job:
    """As `resume`, whatever the tenant has queued: what it had before a suspension it has afterwards."""
    anew: dict[str, Any] = {"pause_requested_at": None, "claimable_at": 0.0, "dispatched_at": None}
    if events.move(session, job_id, JobState.QUEUED, only_from=[JobState.PAUSED], **anew):
        return _done(session, "resume", job_id)
    # its worker may have stopped by now: then it gives the job back, as a worker does that shuts down
    if events.move(session, job_id, JobState.RUNNING, only_from=[JobState.PAUSING], pause_requested_at=None):
        return _done(session, "resume", job_id)
    job = _reload(session, job_id)
    if job.state is JobState.PAUSED:  # its worker has stopped between the two looks
        return go_on(session, job_id)
    if job.state not in {JobState.QUEUED, JobState.RUNNING}:
        raise Conflict(f"job {job_id} is {job.state}.", way_out="Only a paused job can be resumed.")
    return job


def retry(session: Session, job_id: str) -> Job:
    """A failed or cancelled job is queued again with all its tries; finished stages are reused. One that failed since
    its publication came back otherwise than it was sent reads it back again before anything else.

    Conflict in any other state, and for a recipe of another version that cannot be read; QuotaExceeded where the tenant
    has as many queued as it may. After the commit hand its id to `Dispatcher.send`.
    """
    _refuse_over_queue(session, job_id, [JobState.FAILED, JobState.CANCELLED])
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
        "pause_requested_at": None,
        "started_at": None,
        "finished_at": None,
    }
    if spans.current() is not None:
        fresh["traceparent"] = spans.current()
    if not events.move(session, job_id, JobState.QUEUED, only_from=[JobState.FAILED, JobState.CANCELLED], **fresh):
        state = _reload(session, job_id).state
        raise Conflict(f"job {job_id} is {state}.", way_out="Only a failed or cancelled job can be retried.")
    return _done(session, "retry", job_id)


def _refuse_over_queue(session: Session, job_id: str, queues_from: Collection[JobState]) -> None:
    """Before the job is changed, which locks it."""
    job = _reload(session, job_id)
    if job.state in queues_from:
        refuse_over_queue(session, job.tenant_id)


def _refuse_unreadable(job: Job) -> None:
    recipe = recipe_of(job.variant)
    if isinstance(recipe, Unreadable) and job.state in {JobState.FAILED, JobState.CANCELLED}:
        raise Conflict(f"job {job.id} cannot be retried: {recipe.reason}", field="recipe")


def _done(session: Session, what: str, job_id: str) -> Job:
    """The job as it is now, after somebody did something to it."""
    job = _reload(session, job_id)
    record(session, f"job.{what}", job.id, tenant_id=job.tenant_id, related=job.variant_id, state=job.state.value)
    return job


def _reload(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id, populate_existing=True)
    if job is None:
        raise NotFound(f"job {job_id} does not exist.")  # any more
    return job


def wake_for_credential(session: Session, tenant_id: str) -> list[str]:
    """A tenant's jobs that wait for a credential are due at once; their ids, to be sent after the commit."""
    waits = Job.waiting["kind"].as_string() == WaitKind.CREDENTIAL.value
    found = update(Job).where(Job.tenant_id == tenant_id, Job.state == JobState.QUEUED, waits)
    due = found.values(claimable_at=0.0, dispatched_at=None).returning(Job.id)
    return list(session.scalars(due.execution_options(synchronize_session=False)))
