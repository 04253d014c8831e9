"""A job that is paused keeps its place and its tries, and holds no worker; what publishes already is not put aside."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from publisher.errors import Conflict, JobPaused
from publisher.jobs import leases, service, transitions
from publisher.jobs.events import NewEvent
from publisher.jobs.leases import Lease
from publisher.jobs.reaper import Reaper
from publisher.jobs.transitions import Blame, Failure, RetryPolicy
from publisher.jobs.waiting import Waiting, WaitKind
from publisher.settings import Settings
from publisher.store.database import Database
from publisher.store.models import Job
from publisher.store.states import EventKind, JobState
from tests.jobs import rows
from tests.jobs.test_publishing import INTENT

POLICY = RetryPolicy(max_attempts=1, backoff_seconds=10)
AWAY = Failure(Blame.INFRASTRUCTURE, "align", "disk full")


def pause(database: Database, job_id: str) -> JobState:
    with database.write() as session:
        return service.pause(session, job_id).state


def resume(database: Database, job_id: str) -> JobState:
    with database.write() as session:
        return service.resume(session, job_id).state


def release(database: Database, lease: Lease) -> JobState:
    with database.write() as session:
        return transitions.release(session, lease)


def reach(database: Database, lease: Lease, stage: str) -> None:
    with database.write() as session:
        started = NewEvent(EventKind.STAGE, {"stage": stage, "state": "started"})
        leases.report(session, lease, [started], stage, {stage: {"state": "started"}})


def test_queued_job_is_paused_at_once_and_claimed_by_nobody(database: Database) -> None:
    job_id = rows.add_job(database)
    assert pause(database, job_id) is JobState.PAUSED
    assert pause(database, job_id) is JobState.PAUSED
    with database.write() as session:
        assert leases.claim(session, job_id, "w1", 60) is None
    assert rows.states(database, job_id) == ["queued", "paused"]


def test_running_job_pauses_when_its_worker_lets_go_and_costs_no_try(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    reach(database, lease, "align")
    assert pause(database, job_id) is JobState.PAUSING
    with database.write() as session:
        assert leases.renew(session, lease, 60) is JobState.PAUSING
    assert release(database, lease) is JobState.PAUSED
    job = rows.load(database, job_id)
    assert (job.attempt, job.worker, job.lease_expires_at, job.finished_at) == (0, None, None, None)
    assert (job.stage, job.stages) == ("align", {"align": {"state": "started"}})
    assert resume(database, job_id) is JobState.QUEUED
    assert rows.claim(database, job_id, "w2").token == 2
    assert rows.load(database, job_id).attempt == 1


def test_resumed_job_is_sent_before_younger_ones(database: Database, settings: Settings) -> None:
    old, young = rows.add_job(database), rows.add_job(database)
    pause(database, old)
    resume(database, old)
    reaper = Reaper(database, settings)
    assert list(reaper._take_due()) == [old, young]


def test_what_goes_wrong_with_a_pausing_job_costs_no_try(database: Database) -> None:
    """One try was all it had."""
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    pause(database, job_id)
    with database.write() as session:
        assert transitions.fail(session, lease, AWAY, POLICY) is JobState.PAUSED
    assert rows.load(database, job_id).attempt == 0


def test_pausing_job_whose_worker_vanished_is_paused(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    rows.claim(database, job_id)
    pause(database, job_id)
    rows.let_pass(database, job_id, 3600)
    Reaper(database, settings).run_once()
    job = rows.load(database, job_id)
    assert (job.state, job.attempt) == (JobState.PAUSED, 0)


def test_pausing_job_that_comes_to_wait_is_paused(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    pause(database, job_id)
    with database.write() as session:
        assert transitions.wait(session, lease, Waiting(WaitKind.HUB, "away"), 60) is JobState.PAUSED


def test_fault_of_the_request_fails_a_pausing_job(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    pause(database, job_id)
    with database.write() as session:
        failure = Failure(Blame.REQUEST, "fetch", "folder changed")
        assert transitions.fail(session, lease, failure, POLICY) is JobState.FAILED


def test_job_that_ends_before_it_could_pause_has_succeeded(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    pause(database, job_id)
    with database.write() as session:
        transitions.succeed(session, lease, {"commit": "c"}, {}, [])
    assert rows.load(database, job_id).state is JobState.SUCCEEDED


def test_resuming_a_job_that_is_still_pausing_takes_it_back(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    pause(database, job_id)
    assert resume(database, job_id) is JobState.RUNNING
    assert release(database, lease) is JobState.QUEUED  # its worker had stopped already
    assert rows.load(database, job_id).attempt == 0


@pytest.mark.parametrize("claimed", [False, True])
def test_paused_and_pausing_jobs_can_be_cancelled(database: Database, claimed: bool) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id) if claimed else None
    pause(database, job_id)
    with database.write() as session:
        service.cancel(session, job_id)
    if lease is not None:
        assert rows.load(database, job_id).state is JobState.CANCELLING
        release(database, lease)
    assert rows.load(database, job_id).state is JobState.CANCELLED


def test_job_that_publishes_is_not_paused(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        leases.intend(session, lease, INTENT)
    with pytest.raises(Conflict, match="on the Hub already"):
        pause(database, job_id)
    assert release(database, lease) is JobState.QUEUED
    with pytest.raises(Conflict, match="on the Hub already"):
        pause(database, job_id)


def test_job_that_is_to_pause_publishes_nothing_before(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    reach(database, lease, "publish")
    assert pause(database, job_id) is JobState.PAUSING
    with database.write() as session, pytest.raises(JobPaused):
        leases.intend(session, lease, INTENT)
    assert release(database, lease) is JobState.PAUSED
    assert rows.load(database, job_id).publishing is None


def test_hard_stop_counts_from_the_wish_to_pause(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    pause(database, job_id)
    with database.write() as session:
        session.execute(update(Job).values(pause_requested_at=Job.pause_requested_at - 100))
    with database.read() as session:
        status = leases.status(session, lease)
    assert status.state is JobState.PAUSING
    assert status.stopping_for == pytest.approx(100, abs=5)


def test_what_has_ended_is_neither_paused_nor_resumed_and_what_is_paused_not_retried(database: Database) -> None:
    ended, paused = rows.add_job(database), rows.add_job(database)
    with database.write() as session:
        service.cancel(session, ended)
        service.pause(session, paused)
    for wish in (pause, resume):
        with pytest.raises(Conflict, match="is cancelled"):
            wish(database, ended)
    with database.write() as session, pytest.raises(Conflict, match="is paused"):
        service.retry(session, paused)


def test_resuming_what_was_not_paused_changes_nothing(database: Database) -> None:
    job_id = rows.add_job(database)
    assert resume(database, job_id) is JobState.QUEUED
    rows.claim(database, job_id)
    assert resume(database, job_id) is JobState.RUNNING
    assert rows.states(database, job_id) == ["queued", "running"]
