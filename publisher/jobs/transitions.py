"""How a try ends: every function here needs the lease, ends it, and raises LeaseLost if it is over already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from publisher.jobs import events
from publisher.jobs.leases import Lease, hold, lost
from publisher.jobs.waiting import Waiting
from publisher.settings import Settings
from publisher.store.database import database_now
from publisher.store.models import Job, JobEvent, Variant, VariantFile
from publisher.store.states import ACTIVE, EventKind, JobState

#: What is broken over night is found mended in the morning; waiting longer than this helps nobody.
LONGEST_BACKOFF = 3600.0


class Blame(StrEnum):
    """Whose fault it is: trying again helps only with the second."""

    REQUEST = "request"
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True)
class Failure:
    """`stage` is where it happened, `way_out` what a person can do about it. `error_id`: of an error that nobody put
    into words, the same for the same error at the same place."""

    blame: Blame
    stage: str | None
    message: str
    way_out: str | None = None
    error_id: str | None = None

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        return found if self.error_id else {name: value for name, value in found.items() if name != "error_id"}


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

    The request's fault is final. Infrastructure gets `policy.max_attempts` tries, and an error that nobody foresaw two:
    the same one twice in a row comes again. A job that was to be cancelled is cancelled, whatever else went wrong.
    """
    job = hold(session, lease)
    if job.state is JobState.CANCELLING:
        return _end(session, lease, JobState.CANCELLED)
    is_final = failure.blame is Blame.REQUEST or job.attempt >= policy.max_attempts
    if is_final or _came_before(session, job.id, failure):
        return _end(session, lease, JobState.FAILED, failure=failure.as_json())
    return _requeue(session, lease, policy.delay(job.attempt), failure=failure.as_json())


def _came_before(session: Session, job_id: str, failure: Failure) -> bool:
    """Whether the try before this one ended in the same error."""
    if failure.error_id is None:
        return False
    states = select(JobEvent.data).where(JobEvent.job_id == job_id, JobEvent.kind == EventKind.STATE.value)
    # the last is this try's running; the one before says how the last try ended
    before = session.scalars(states.order_by(JobEvent.seq.desc()).limit(2)).all()
    earlier = (before[-1].get("failure") or {}) if before else {}
    return bool(earlier.get("error_id") == failure.error_id)


def finish_cancel(session: Session, lease: Lease) -> None:
    """The worker has stopped."""
    hold(session, lease)
    _end(session, lease, JobState.CANCELLED)


def release(session: Session, lease: Lease) -> JobState:
    """Give the job back because the worker shuts down: not the job's fault, so the try does not count."""
    job = hold(session, lease)
    if job.state is JobState.CANCELLING:
        return _end(session, lease, JobState.CANCELLED)
    return _requeue(session, lease, 0.0, attempt=Job.attempt - 1)


def wait(session: Session, lease: Lease, waiting: Waiting, seconds: float) -> JobState:
    """Give the job back until what it waits for may be there, in `seconds` at the earliest: no try is counted."""
    job = hold(session, lease)
    if job.state is JobState.CANCELLING:
        return _end(session, lease, JobState.CANCELLED)
    since = database_now() if job.waiting_since is None else Job.waiting_since
    values = {"attempt": Job.attempt - 1, "waiting": waiting.as_json(), "waiting_since": since}
    return _requeue(session, lease, seconds, **values)


def waited_seconds(session: Session, lease: Lease) -> float:
    """For how long the job has waited since it last finished a stage; 0 if it did not have to. Raises LeaseLost."""
    job = hold(session, lease)
    if job.waiting_since is None:
        return 0.0
    return float(session.scalar(select(database_now() - Job.waiting_since).where(Job.id == job.id)) or 0.0)


def _end(session: Session, lease: Lease, state: JobState, **values: Any) -> JobState:
    return _move(session, lease, state, finished_at=database_now(), waiting_since=None, **values)


def _requeue(session: Session, lease: Lease, delay: float, **values: Any) -> JobState:
    # without dispatched_at the reaper sends the job as soon as it is due
    again = {"claimable_at": database_now() + delay, "dispatched_at": None, "worker": None}
    return _move(session, lease, JobState.QUEUED, **again, **values)


def _move(session: Session, lease: Lease, state: JobState, **values: Any) -> JobState:
    holds = [Job.lease_token == lease.token]
    if not events.move(session, lease.job_id, state, only_from=ACTIVE, where=holds, lease_expires_at=None, **values):
        raise lost(lease)
    return state
