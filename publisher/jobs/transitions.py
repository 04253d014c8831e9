"""How a try ends: every function here needs the lease, ends it, and raises LeaseLost if it is over already.

None of them ends a job as cancelled or failed while nobody knows whether its commit was made (Job.publishing): whoever
claims it next asks the Hub first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self, cast

from sqlalchemy import Table, bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from publisher.files.amounts import duration
from publisher.jobs import attempts, events
from publisher.jobs.events import JOBS, NewEvent, is_in
from publisher.jobs.leases import Held, Lease, hold, lost
from publisher.jobs.publishing import TOO_LATE, Intent
from publisher.jobs.waiting import Waiting, pause
from publisher.settings import Settings
from publisher.store.audit import record
from publisher.store.database import clock, database_now
from publisher.store.models import JobAttempt, Variant, VariantFile
from publisher.store.origin import Subject
from publisher.store.states import ACTIVE, AttemptOutcome, EventKind, JobState
from publisher.store.variant_content import summary_of

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


# made once, by the tables
_VARIANTS, _FILES = cast(Table, Variant.__table__), cast(Table, VariantFile.__table__)
_PUBLISHED = (
    update(_VARIANTS)
    .where(_VARIANTS.c.id == bindparam("made"))
    .values({name: bindparam(name) for name in ("publication", "manifest", "reduction", "verdict")})
)
_FORGET_FILES = delete(_FILES).where(_FILES.c.variant_id == bindparam("made"))
_KEEP_FILES = insert(_FILES)


def succeed(
    session: Session,
    lease: Lease,
    publication: Mapping[str, Any],
    manifest: Mapping[str, Any],
    files: Iterable[PublishedFile],
) -> None:
    """Record what was published and end the job.

    A job that was asked to stop when everything lay in the Hub already has succeeded, too: that is what is true, and
    its log says so.
    """
    job = hold(session, lease)
    if job.state is JobState.CANCELLING:
        events.append(session, lease.job_id, lease.token, [NewEvent(EventKind.LOG, {"message": TOO_LATE})])
    told = {name: publication.get(name) for name in ("repo_id", "commit", "endpoint")}
    _end(session, lease, JobState.SUCCEEDED, told, failure=None)
    made = {"made": job.variant_id}
    said = summary_of(manifest)
    shown = {"reduction": said.reduction, "verdict": said.verdict}
    session.execute(_PUBLISHED, made | shown | {"publication": dict(publication), "manifest": dict(manifest)})
    session.execute(_FORGET_FILES, made)
    rows = [{"variant_id": job.variant_id, **vars(file)} for file in files]
    if rows:
        session.execute(_KEEP_FILES, rows)


def fail(session: Session, lease: Lease, failure: Failure, policy: RetryPolicy, *, published: bool = False) -> JobState:
    """End a try that failed; returns queued if there will be another.

    The request's fault is final. Infrastructure gets `policy.max_attempts` tries, and an error that nobody foresaw two:
    the same one twice in a row comes again. A job that was to be cancelled is cancelled, whatever else went wrong, and
    one that was to be paused is paused at the cost of no try.
    `published`: the Hub has the commit, and something is wrong with it.
    """
    job = hold(session, lease)
    final = failure.blame is Blame.REQUEST or job.attempt >= policy.max_attempts
    final = final or _came_before(session, job, failure)
    if job.state is JobState.CANCELLING and not published:
        return _stop(session, lease, job)
    if job.state is JobState.PAUSING and failure.blame is Blame.INFRASTRUCTURE and not published:
        return _pause(session, lease, job, failure=failure.as_json())
    if job.state is JobState.CANCELLING or (final and (published or job.publishing is None)):
        # what is at the Hub stays the job's: a retry reads it back before anything else
        kept = _unsure(session, job) if published else None
        return _end(session, lease, JobState.FAILED, failure=failure.as_json(), publishing=kept)
    values: dict[str, Any] = {
        "failure": failure.as_json(),
        "publishing": _unsure(session, job, failure if final else None),
    }
    if final:  # the next claim only asks the Hub, which is no try
        values["attempt"] = JOBS.c.attempt - 1
    return _requeue(session, lease, AttemptOutcome.FAILED, policy.delay(job.attempt), **values)


def _came_before(session: Session, job: Held, failure: Failure) -> bool:
    """Whether the try before this one ended in the same error, of those since the last retry."""
    if failure.error_id is None or job.attempt == 1:  # tries of before a retry do not count
        return False
    ended = (JobAttempt.job_id == job.id, JobAttempt.outcome == AttemptOutcome.FAILED.value)
    earlier = session.scalar(select(JobAttempt.failure).where(*ended).order_by(JobAttempt.number.desc()).limit(1))
    return earlier is not None and earlier.get("error_id") == failure.error_id


def finish_cancel(session: Session, lease: Lease) -> JobState:
    """The worker has stopped. Returns cancelling if the Hub is still to be asked."""
    return _stop(session, lease, hold(session, lease))


def end_unpublished(session: Session, lease: Lease) -> JobState:
    """The Hub has not made the commit and never will, and the job waited for nothing else: cancelled or failed."""
    job = hold(session, lease)
    intent = Intent.of(job.publishing)
    if job.state is JobState.CANCELLING or intent is None or intent.verdict is None:
        return _end(session, lease, JobState.CANCELLED)
    return _end(session, lease, JobState.FAILED, failure=intent.verdict)


def release(session: Session, lease: Lease) -> JobState:
    """Give the job back because the worker shuts down or the job is to pause: not the job's fault, so the try does not
    count."""
    job = hold(session, lease)
    if job.state is JobState.CANCELLING:
        return _stop(session, lease, job)
    if job.state is JobState.PAUSING:
        return _pause(session, lease, job)
    return _requeue(
        session, lease, AttemptOutcome.RELEASED, 0.0, attempt=JOBS.c.attempt - 1, publishing=_unsure(session, job)
    )


def release_all(session: Session) -> int:
    """Give back every job that a worker holds, where none of these workers is there any more; returns how many."""
    held = session.execute(
        select(JOBS.c.id, JOBS.c.lease_token).where(is_in(ACTIVE), JOBS.c.lease_expires_at.is_not(None))
    )
    leases = [Lease(id, token) for id, token in held]
    for lease in leases:
        release(session, lease)
    return len(leases)


def wait(session: Session, lease: Lease, waiting: Waiting, seconds: float) -> JobState:
    """Give the job back until what it waits for may be there, in `seconds` at the earliest: no try is counted."""
    job = hold(session, lease)
    if job.state is JobState.CANCELLING:
        return _stop(session, lease, job, seconds, waiting=waiting.as_json())
    if job.state is JobState.PAUSING:
        return _pause(session, lease, job)
    since = database_now() if job.waiting_since is None else JOBS.c.waiting_since
    values = {"attempt": JOBS.c.attempt - 1, "waiting": waiting.as_json(), "waiting_since": since}
    return _requeue(session, lease, AttemptOutcome.WAITING, seconds, publishing=_unsure(session, job), **values)


def wait_patiently(
    session: Session, lease: Lease, waiting: Waiting, patience: float | None, not_before: float = 0.0
) -> JobState:
    """As `wait`, longer each time and `not_before` so many seconds have passed, but no longer than patience lasts.

    Fails the job, as infrastructure, once it has waited for `patience` seconds in all (None: never). Never while its
    commit may have been made.
    """
    job = hold(session, lease)
    waited = 0.0 if job.waiting_since is None else max(0.0, clock(session) - job.waiting_since)
    ends = patience is not None and waited >= patience and job.publishing is None
    if ends and job.state is JobState.RUNNING:
        message = f"{waiting.message} The job waited for {duration(waited)}."
        failure = Failure(Blame.INFRASTRUCTURE, waiting.stage, message, waiting.way_out)
        return _end(session, lease, JobState.FAILED, failure=failure.as_json())
    if patience is not None:
        not_before = min(not_before, max(0.0, patience - waited))
    return wait(session, lease, waiting, max(pause(waited), not_before))


def _stop(session: Session, lease: Lease, job: Held, delay: float = 0.0, **values: Any) -> JobState:
    """Cancelled; or cancelling, without a worker, until the Hub was asked."""
    if job.publishing is None:
        return _end(session, lease, JobState.CANCELLED)
    outcome = AttemptOutcome.WAITING if "waiting" in values else AttemptOutcome.RELEASED
    return _give_back(session, lease, JobState.CANCELLING, outcome, delay, publishing=_unsure(session, job), **values)


def _pause(session: Session, lease: Lease, job: Held, **values: Any) -> JobState:
    values |= {"attempt": JOBS.c.attempt - 1, "waiting_since": None}
    if job.publishing is not None:  # the next try asks the Hub
        values |= {"publishing": _unsure(session, job), "pause_requested_at": None}
        return _requeue(session, lease, AttemptOutcome.RELEASED, 0.0, **values)
    return _move(session, lease, JobState.PAUSED, AttemptOutcome.PAUSED, dispatched_at=None, worker=None, **values)


def _unsure(session: Session, job: Held, verdict: Failure | None = None) -> dict[str, Any] | None:
    """What the job was about to publish, from now on without anybody who waits for the answer; the first verdict
    stays."""
    intent = Intent.of(job.publishing)
    if intent is None:
        return None
    lost_at = clock(session) if intent.lost_at is None else intent.lost_at
    said = intent.verdict or (None if verdict is None else verdict.as_json())
    return intent.model_copy(update={"lost_at": lost_at, "verdict": said}).as_json()


def _end(
    session: Session, lease: Lease, state: JobState, told: Mapping[str, Any] | None = None, **values: Any
) -> JobState:
    """`told`: what the audit log says of it besides."""
    over = {"finished_at": database_now(), "waiting_since": None, "publishing": None}
    ended = _moved(session, lease, state, AttemptOutcome(state.value), **(over | values))
    failure = values.get("failure") or {}
    record(
        session,
        f"job.{state.value}",
        lease.job_id,
        tenant_id=ended.tenant_id,
        related=ended.variant_id,
        by=Subject.job(lease.job_id),
        worker=ended.worker,
        blame=failure.get("blame"),
        stage=failure.get("stage"),
        **(told or {}),
    )
    return state


def _requeue(session: Session, lease: Lease, outcome: AttemptOutcome, delay: float, **values: Any) -> JobState:
    return _give_back(session, lease, JobState.QUEUED, outcome, delay, **values)


def _give_back(
    session: Session, lease: Lease, state: JobState, outcome: AttemptOutcome, delay: float, **values: Any
) -> JobState:
    # without dispatched_at the reaper sends the job as soon as it is due
    again = {"claimable_at": database_now() + delay, "dispatched_at": None, "worker": None}
    return _move(session, lease, state, outcome, **again, **values)


def _move(session: Session, lease: Lease, state: JobState, outcome: AttemptOutcome, **values: Any) -> JobState:
    _moved(session, lease, state, outcome, **values)
    return state


def _moved(session: Session, lease: Lease, state: JobState, outcome: AttemptOutcome, **values: Any) -> events.Moved:
    holds = [JOBS.c.lease_token == lease.token]
    moved = events.move(session, lease.job_id, state, only_from=ACTIVE, where=holds, lease_expires_at=None, **values)
    if moved is None:
        raise lost(lease)
    told = {name: values[name] for name in ("failure", "waiting") if name in values}
    attempts.end(session, lease.job_id, moved, outcome, **told)
    return moved
