"""While nobody knows whether a job's commit was made, nothing ends the job as cancelled or failed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from publisher.errors import JobCancelled, LeaseLost
from publisher.jobs import leases, service, transitions
from publisher.jobs.leases import Lease
from publisher.jobs.publishing import TOO_LATE, Intent
from publisher.jobs.reaper import Reaper
from publisher.jobs.transitions import Blame, Failure, RetryPolicy
from publisher.jobs.waiting import Waiting, WaitKind
from publisher.manifest.manifest import FileRecord
from publisher.settings import Settings
from publisher.store.database import Database
from publisher.store.states import JobState
from tests.jobs import rows

INTENT = Intent(
    endpoint="http://hub",
    repo_id="org/small",
    parent="0" * 40,
    files={"loram.json": FileRecord(size=2, sha256="a" * 64)},
)
POLICY = RetryPolicy(max_attempts=1, backoff_seconds=0)
BROKEN = Failure(Blame.INFRASTRUCTURE, "publish", "killed")
WRONG = Failure(Blame.REQUEST, "publish", "no")
AWAY = Waiting(WaitKind.HUB, "the Hub is away.", "publish")
End = Callable[[Session, Lease], object]
ENDS: dict[str, End] = {
    "cancel": transitions.finish_cancel,
    "failure": lambda session, lease: transitions.fail(session, lease, BROKEN, POLICY),
    "request": lambda session, lease: transitions.fail(session, lease, WRONG, POLICY),
    "shutdown": transitions.release,
    "wait": lambda session, lease: transitions.wait(session, lease, AWAY, 0),
    "no patience left": lambda session, lease: transitions.wait_patiently(session, lease, AWAY, 0.0),
}


def publishing(database: Database) -> Lease:
    """A job whose commit is on its way."""
    lease = rows.claim(database, rows.add_job(database))
    with database.write() as session:
        leases.intend(session, lease, INTENT)
    return lease


def cancel(database: Database, job_id: str) -> JobState:
    with database.write() as session:
        return service.cancel(session, job_id).state


def settle(database: Database, job_id: str) -> JobState:
    """The Hub says that the commit is not there."""
    rows.let_pass(database, job_id, 3600)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        return transitions.end_unpublished(session, lease)


def test_nothing_is_intended_once_the_job_is_to_be_cancelled(database: Database) -> None:
    lease = rows.claim(database, rows.add_job(database))
    cancel(database, lease.job_id)
    with database.write() as session, pytest.raises(JobCancelled):
        leases.intend(session, lease, INTENT)
    assert rows.load(database, lease.job_id).publishing is None


def test_nothing_is_intended_under_a_lease_that_is_over(database: Database) -> None:
    lease = rows.claim(database, rows.add_job(database))
    rows.let_pass(database, lease.job_id, 3600)  # and no reaper has looked yet
    with database.write() as session, pytest.raises(LeaseLost):
        leases.intend(session, lease, INTENT)
    with database.write() as session:
        transitions.release(session, lease)
    rows.claim(database, lease.job_id, "w2")
    with database.write() as session, pytest.raises(LeaseLost):
        leases.intend(session, lease, INTENT)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_cancelled_job_is_claimed_again_until_the_hub_has_answered(database: Database, end: End) -> None:
    lease = publishing(database)
    assert cancel(database, lease.job_id) is JobState.CANCELLING
    with database.write() as session:
        end(session, lease)
    job = rows.load(database, lease.job_id)
    assert (job.state, job.lease_expires_at, job.worker) == (JobState.CANCELLING, None, None)
    rows.let_pass(database, lease.job_id, 3600)
    second = rows.claim(database, lease.job_id, "w2")
    job = rows.load(database, lease.job_id)
    assert (second.token, job.state, job.attempt) == (lease.token + 1, JobState.CANCELLING, 1)
    with database.write() as session:
        assert leases.claim(session, lease.job_id, "w3", 60) is None
        assert transitions.end_unpublished(session, second) is JobState.CANCELLED
    assert rows.load(database, lease.job_id).publishing is None


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_job_that_is_given_back_still_has_what_is_to_be_asked(database: Database, end: End) -> None:
    lease = publishing(database)
    if end is ENDS["cancel"]:
        cancel(database, lease.job_id)
    with database.write() as session:
        end(session, lease)
    job = rows.load(database, lease.job_id)
    intent = Intent.of(job.publishing)
    assert not job.state.finished
    assert intent is not None
    assert intent.lost_at is not None
    assert (intent.parent, intent.files) == (INTENT.parent, INTENT.files)


def test_queued_job_that_may_have_published_is_not_cancelled_unasked(database: Database) -> None:
    lease = publishing(database)
    with database.write() as session:
        transitions.release(session, lease)
    assert cancel(database, lease.job_id) is JobState.CANCELLING
    assert settle(database, lease.job_id) is JobState.CANCELLED


@pytest.mark.parametrize("failure", [BROKEN, WRONG])
def test_job_without_further_tries_fails_once_the_hub_was_asked(database: Database, failure: Failure) -> None:
    lease = publishing(database)
    with database.write() as session:
        assert transitions.fail(session, lease, failure, POLICY) is JobState.QUEUED
    rows.let_pass(database, lease.job_id, 3600)
    lease = rows.claim(database, lease.job_id)
    with database.write() as session:  # whoever asks is killed, too
        transitions.fail(session, lease, Failure(Blame.INFRASTRUCTURE, "publish", "killed again"), POLICY)
    assert settle(database, lease.job_id) is JobState.FAILED
    job = rows.load(database, lease.job_id)
    assert job.failure is not None
    assert (job.failure["message"], job.attempt) == (failure.message, 1)


def test_job_of_a_silent_worker_is_asked_about_and_sent(database: Database, settings: Settings) -> None:
    lease = publishing(database)
    cancel(database, lease.job_id)
    rows.let_pass(database, lease.job_id, 3600)
    Reaper(database, settings).run_once()
    job = rows.load(database, lease.job_id)
    assert (job.state, job.lease_expires_at) == (JobState.CANCELLING, None)
    assert job.dispatched_at is not None
    assert settle(database, lease.job_id) is JobState.CANCELLED


def test_refused_commit_lets_a_cancel_count_again(database: Database) -> None:
    lease = publishing(database)
    cancel(database, lease.job_id)
    with database.write() as session:
        leases.withdraw(session, lease)
        assert transitions.finish_cancel(session, lease) is JobState.CANCELLED


def test_cancel_that_came_too_late_is_told(database: Database) -> None:
    lease = publishing(database)
    cancel(database, lease.job_id)
    with database.write() as session:
        transitions.succeed(session, lease, {"commit": "c0ffee"}, {}, [])
    job = rows.load(database, lease.job_id)
    assert (job.state, job.publishing) == (JobState.SUCCEEDED, None)
    told = [event.data["message"] for event in rows.read_events(database, lease.job_id) if event.kind == "log"]
    assert told == [TOO_LATE]


def test_what_is_published_and_comes_back_otherwise_is_never_called_cancelled(database: Database) -> None:
    lease = publishing(database)
    with database.write() as session:
        assert transitions.fail(session, lease, BROKEN, RetryPolicy(2, 0), published=True) is JobState.QUEUED
    rows.let_pass(database, lease.job_id, 3600)
    lease = rows.claim(database, lease.job_id)
    cancel(database, lease.job_id)
    with database.write() as session:
        assert transitions.fail(session, lease, BROKEN, POLICY, published=True) is JobState.FAILED
    with database.write() as session:
        service.retry(session, lease.job_id)
    # it is there: cancelling the retry does not make that untrue
    assert cancel(database, lease.job_id) is JobState.CANCELLING
    rows.claim(database, lease.job_id)
    assert rows.load(database, lease.job_id).started_at is not None
