"""How a try ends: retries that are bounded and wait longer each time, faults that are final, cancels that win."""

from __future__ import annotations

import math
import time

import pytest

from publisher.errors import Conflict
from publisher.jobs import leases, service, transitions
from publisher.jobs.events import NewEvent
from publisher.jobs.transitions import Blame, Failure, PublishedFile, RetryPolicy
from publisher.jobs.waiting import Waiting, WaitKind
from publisher.store.database import Database
from publisher.store.models import Variant
from publisher.store.states import EventKind, JobState
from tests.jobs import rows

LOST_DISK = Failure(Blame.INFRASTRUCTURE, "prune", "disk full", "free some space")
BAD_MODEL = Failure(Blame.REQUEST, "fetch", "folder changed", "register it again")
POLICY = RetryPolicy(max_attempts=3, backoff_seconds=10)


def fail(database: Database, job_id: str, failure: Failure) -> JobState:
    lease = rows.claim(database, job_id)
    with database.write() as session:
        return transitions.fail(session, lease, failure, POLICY)


def test_infrastructure_is_tried_a_bounded_number_of_times_with_growing_pauses(database: Database) -> None:
    job_id = rows.add_job(database)
    pauses = []
    while fail(database, job_id, LOST_DISK) is JobState.QUEUED:
        pauses.append(rows.load(database, job_id).claimable_at - time.time())
        rows.let_pass(database, job_id, 3600)
    assert pauses == [pytest.approx(10, abs=2), pytest.approx(20, abs=2)]
    job = rows.load(database, job_id)
    assert job.state is JobState.FAILED
    assert job.attempt == 3
    assert job.failure == {
        "blame": "infrastructure",
        "stage": "prune",
        "message": "disk full",
        "way_out": "free some space",
    }


def test_the_same_unforeseen_error_twice_in_a_row_is_not_tried_a_third_time(database: Database) -> None:
    job_id = rows.add_job(database)
    one, other = (Failure(Blame.INFRASTRUCTURE, "prune", "odd", error_id=number) for number in ("a" * 8, "b" * 8))
    assert fail(database, job_id, one) is JobState.QUEUED
    rows.let_pass(database, job_id, 3600)
    assert fail(database, job_id, other) is JobState.QUEUED, "another error may be gone the next time"
    with database.write() as session:
        service.cancel(session, job_id)
        service.retry(session, job_id)
    assert fail(database, job_id, other) is JobState.QUEUED, "after a retry tries count anew"
    rows.let_pass(database, job_id, 3600)
    assert fail(database, job_id, other) is JobState.FAILED
    failure = rows.load(database, job_id).failure
    assert failure is not None
    assert failure["error_id"] == "b" * 8


def test_pauses_do_not_grow_for_ever() -> None:
    assert RetryPolicy(100, 10).delay(90) == 3600


def test_fault_of_the_request_is_not_tried_again(database: Database) -> None:
    job_id = rows.add_job(database)
    assert fail(database, job_id, BAD_MODEL) is JobState.FAILED
    job = rows.load(database, job_id)
    assert job.failure is not None
    assert (job.failure["blame"], job.attempt) == ("request", 1)
    assert rows.read_events(database, job_id)[-1].data["failure"]["message"] == "folder changed"


def test_waiting_is_not_a_try_and_says_for_what_and_since_when(database: Database) -> None:
    job_id = rows.add_job(database)
    wanted = Waiting(WaitKind.HUB, "the Hub answered 503", "publish", "nothing to do")
    since = set()
    for _ in range(5):  # more often than there are tries
        lease = rows.claim(database, job_id)
        with database.write() as session:
            assert transitions.wait(session, lease, wanted, 60) is JobState.QUEUED
        job = rows.load(database, job_id)
        since.add(job.waiting_since)
        assert (job.attempt, job.failure, job.waiting) == (0, None, wanted.as_json())
        assert job.claimable_at - time.time() == pytest.approx(60, abs=5)
        rows.let_pass(database, job_id, 3600)
    assert len(since) == 1
    assert rows.read_events(database, job_id)[-1].data["waiting"]["kind"] == "hub"


def test_a_hub_that_asks_for_years_is_asked_again_before_patience_ends(database: Database) -> None:
    job_id = rows.add_job(database)
    lease, away = rows.claim(database, job_id), Waiting(WaitKind.HUB, "away")
    with database.write() as session:
        assert transitions.wait_patiently(session, lease, away, 3600, math.inf) is JobState.QUEUED
    assert rows.load(database, job_id).claimable_at - time.time() == pytest.approx(3600, abs=5)


def test_job_that_goes_on_waits_no_more_and_is_patient_anew_after_a_stage(database: Database) -> None:
    job_id = rows.add_job(database)
    with database.write() as session:
        transitions.wait(session, rows.claim(database, job_id), Waiting(WaitKind.HUB, "away"), 0)
    lease = rows.claim(database, job_id)
    assert rows.load(database, job_id).waiting is None
    assert rows.load(database, job_id).waiting_since is not None
    finished = NewEvent(EventKind.STAGE, {"stage": "fetch", "state": "finished"})
    with database.write() as session:
        leases.report(session, lease, [finished], "fetch", {})
    assert rows.load(database, job_id).waiting_since is None


def test_waiting_job_that_was_to_be_cancelled_is_cancelled(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        service.cancel(session, job_id)
        assert transitions.wait(session, lease, Waiting(WaitKind.HUB, "away"), 0) is JobState.CANCELLED


def test_queued_job_is_cancelled_at_once_and_never_claimed(database: Database) -> None:
    job_id = rows.add_job(database)
    with database.write() as session:
        assert service.cancel(session, job_id).state is JobState.CANCELLED
        assert leases.claim(session, job_id, "w1", 60) is None


def test_running_job_is_cancelled_by_its_worker(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        assert service.cancel(session, job_id).state is JobState.CANCELLING
        assert service.cancel(session, job_id).state is JobState.CANCELLING
    with database.write() as session:
        transitions.finish_cancel(session, lease)
    assert rows.states(database, job_id) == ["queued", "running", "cancelling", "cancelled"]


def test_failure_of_a_job_that_was_to_be_cancelled_is_a_cancel(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        service.cancel(session, job_id)
        assert transitions.fail(session, lease, LOST_DISK, POLICY) is JobState.CANCELLED


def test_job_that_ended_can_not_be_cancelled(database: Database) -> None:
    job_id = rows.add_job(database)
    fail(database, job_id, BAD_MODEL)
    with database.write() as session, pytest.raises(Conflict, match="already failed"):
        service.cancel(session, job_id)


def test_retry_starts_afresh_with_a_new_token(database: Database) -> None:
    job_id = rows.add_job(database)
    fail(database, job_id, BAD_MODEL)
    with database.write() as session:
        job = service.retry(session, job_id)
        assert (job.state, job.attempt, job.failure, job.finished_at) == (JobState.QUEUED, 0, None, None)
    assert rows.claim(database, job_id).token == 2


def test_running_job_can_not_be_retried(database: Database) -> None:
    job_id = rows.add_job(database)
    rows.claim(database, job_id)
    with database.write() as session, pytest.raises(Conflict, match="is running"):
        service.retry(session, job_id)


def test_worker_that_shuts_down_gives_the_job_back_without_costing_a_try(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        assert transitions.release(session, lease) is JobState.QUEUED
    job = rows.load(database, job_id)
    assert (job.attempt, job.worker, job.dispatched_at) == (0, None, None)
    assert rows.claim(database, job_id, "w2").token == 2


def test_success_records_publication_manifest_and_files_together(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    files = [PublishedFile("config.json", 12, "a" * 64), PublishedFile("model.safetensors", 2**40, "b" * 64)]
    with database.write() as session:
        transitions.succeed(session, lease, {"commit": "c0ffee"}, {"format_version": 1}, files)
    with database.read() as session:
        variant = session.get_one(Variant, rows.load(database, job_id).variant_id)
        assert variant.publication == {"commit": "c0ffee"}
        assert variant.manifest == {"format_version": 1}
        assert [(file.path, file.size) for file in variant.files] == [("config.json", 12), ("model.safetensors", 2**40)]
    assert rows.states(database, job_id)[-1] == "succeeded"


def test_what_was_published_before_the_cancel_came_is_a_success(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        service.cancel(session, job_id)
        transitions.succeed(session, lease, {"commit": "c0ffee"}, {}, [])
    assert rows.load(database, job_id).state is JobState.SUCCEEDED
