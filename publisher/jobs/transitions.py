"""How a try ends: every function here needs the lease, ends it, and raises LeaseLost if it is over already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from sqlalchemy import delete, insert, update
from sqlalchemy.orm import Session

from publisher.jobs import attempts, events
from publisher.jobs.leases import Lease, hold, lost
from publisher.jobs.publishing import may_have_published
from publisher.jobs.waiting import Waiting
from publisher.settings import Settings
from publisher.store.database import database_now
from publisher.store.models import Job, Variant, VariantFile
from publisher.store.states import ACTIVE, AttemptOutcome, JobState

#: A disk that is full over night is found with space in the morning; waiting longer than this helps nobody.
LONGEST_BACKOFF = 3600.0


class Blame(StrEnum):
    """Whose fault it is: trying again helps only with the second."""

    REQUEST = "request"
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True)
class Failure:
    """`stage` is where it happened, `way_out` what a person can do about it."""

    blame: Blame
    stage: str | None
    message: str
    way_out: str | None = None


@dataclass(frozen=True)
class RetryPolicy:
    """Bounds on tries after infrastructure failures; seconds."""

    max_attempts: int
    backoff_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.max_attempts, settings.retry_backoff_seconds)

    def delay(self, attempt: int) -> float:
        """Seconds between try number `attempt` and the next."""
        return float(min(self.backoff_seconds * 2 ** min(attempt - 1, 30), LONGEST_BACKOFF))


@dataclass(frozen=True)
class PublishedFile:
    """`size` in bytes."""

    path: str
    size: int
    sha256: str


def succeed(
    session: Session,
    lease: Lease,
    publication: Mapping[str, Any],
    manifest: Mapping[str, Any],
    files: Iterable[PublishedFile],
) -> None:
    """Record what was published and end the job.

    A job that was asked to stop when everything lay in the Hub already has succeeded, too: that is what is true.
    """
    variant_id = hold(session, lease).variant_id
    _end(session, lease, JobState.SUCCEEDED, failure=None)
    outcome = {"publication": dict(publication), "manifest": dict(manifest)}
    session.execute(update(Variant).where(Variant.id == variant_id).values(**outcome))
    session.execute(delete(VariantFile).where(VariantFile.variant_id == variant_id))
    rows = [{"variant_id": variant_id, **asdict(file)} for file in files]
    if rows:
        session.execute(insert(VariantFile), rows)


def fail(session: Session, lease: Lease, failure: Failure, policy: RetryPolicy) -> JobState:
    """End a try that failed; returns queued if there will be another.

    The request's fault is final. Infrastructure gets `policy.max_attempts` tries. A job that was to be cancelled
    is cancelled, whatever else went wrong, and one that was to be paused is paused at the cost of no try.
    """
    job = hold(session, lease)
    if job.state is JobState.CANCELLING:
        return _end(session, lease, JobState.CANCELLED)
    if job.state is JobState.PAUSING and failure.blame is Blame.INFRASTRUCTURE:
        return _pause(session, lease, failure=asdict(failure))
    if failure.blame is Blame.REQUEST or job.attempt >= policy.max_attempts:
        return _end(session, lease, JobState.FAILED, failure=asdict(failure))
    return _requeue(session, lease, AttemptOutcome.FAILED, policy.delay(job.attempt), failure=asdict(failure))


def finish_cancel(session: Session, lease: Lease) -> None:
    """The worker has stopped."""
    hold(session, lease)
    _end(session, lease, JobState.CANCELLED)


def release(session: Session, lease: Lease) -> JobState:
    """Give the job back because the worker shuts down or the job is to pause: not the job's fault, so the try does not
    count."""
    job = hold(session, lease)
    if job.state is JobState.CANCELLING:
        return _end(session, lease, JobState.CANCELLED)
    if job.state is JobState.PAUSING:
        return _pause(session, lease)
    return _requeue(session, lease, AttemptOutcome.RELEASED, 0.0, attempt=Job.attempt - 1)


def wait(session: Session, lease: Lease, waiting: Waiting, seconds: float) -> JobState:
    """Give the job back until what it waits for may be there, in `seconds` at the earliest: no try is counted."""
    job = hold(session, lease)
    if job.state is JobState.CANCELLING:
        return _end(session, lease, JobState.CANCELLED)
    if job.state is JobState.PAUSING:
        return _pause(session, lease)
    since = database_now() if job.waiting_since is None else Job.waiting_since
    values = {"attempt": Job.attempt - 1, "waiting": waiting.as_json(), "waiting_since": since}
    return _requeue(session, lease, AttemptOutcome.WAITING, seconds, **values)


def _end(session: Session, lease: Lease, state: JobState, **values: Any) -> JobState:
    outcome = AttemptOutcome(state.value)
    return _move(session, lease, state, outcome, finished_at=database_now(), waiting_since=None, **values)


def _pause(session: Session, lease: Lease, **values: Any) -> JobState:
    values |= {"attempt": Job.attempt - 1, "waiting_since": None}
    if may_have_published(session, lease.job_id):  # the next try finds out, and ends the job
        return _requeue(session, lease, AttemptOutcome.RELEASED, 0.0, **values, pause_requested_at=None)
    return _move(session, lease, JobState.PAUSED, AttemptOutcome.PAUSED, dispatched_at=None, worker=None, **values)


def _requeue(session: Session, lease: Lease, outcome: AttemptOutcome, delay: float, **values: Any) -> JobState:
    # without dispatched_at the reaper sends the job as soon as it is due
    again = {"claimable_at": database_now() + delay, "dispatched_at": None, "worker": None}
    return _move(session, lease, JobState.QUEUED, outcome, **again, **values)


def _move(session: Session, lease: Lease, state: JobState, outcome: AttemptOutcome, **values: Any) -> JobState:
    holds = [Job.lease_token == lease.token]
    if not events.move(session, lease.job_id, state, only_from=ACTIVE, where=holds, lease_expires_at=None, **values):
        raise lost(lease)
    told = {name: values[name] for name in ("failure", "waiting") if name in values}
    attempts.end(session, lease.job_id, lease.token, outcome, **told)
    return state
