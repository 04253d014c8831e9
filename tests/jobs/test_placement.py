"""Queued jobs say which worker they wait for, as long as there is none; on both databases."""

from __future__ import annotations

from sqlalchemy import update

from publisher.api.jobs_schema import JobAnswer
from publisher.jobs import leases, placement, transitions
from publisher.jobs.waiting import Waiting, WaitKind
from publisher.plan.sizes import GIB
from publisher.store.database import Database
from publisher.store.models import Job, Worker
from tests.jobs import rows


def keep_true(database: Database) -> int:
    with database.write() as session:
        placement.fill_shapes(session)
    return placement.keep_waiting_true(database, 30)


def message(database: Database, job_id: str) -> str | None:
    waiting = rows.load(database, job_id).waiting
    assert waiting is None or waiting["kind"] == "worker"
    return waiting and waiting["message"]


def test_a_job_says_what_is_missing_until_a_worker_that_holds_it_comes(database: Database) -> None:
    job_id = rows.add_sized_job(database, 209 * GIB)
    keep_true(database)
    assert message(database, job_id) == "no worker is running."
    rows.add_worker(database, "small", 80 * GIB)
    keep_true(database)
    assert message(database, job_id) == "stage align needs 209.0 GiB of memory; the largest worker holds 80.0."
    rows.add_worker(database, "large", 250 * GIB)
    keep_true(database)
    assert message(database, job_id) is None
    rows.last_seen(database, "large", 60)
    keep_true(database)
    assert message(database, job_id) is not None
    said = [event.data.get("waiting") for event in rows.read_events(database, job_id)]
    assert [waiting is None for waiting in said] == [True, False, False, True, False]
    job = rows.load(database, job_id)
    assert (job.attempt, job.waiting_since) == (0, None), "no try, and nobody's patience"


def test_a_job_says_since_when_it_waits_for_a_worker_whichever_is_missing(database: Database) -> None:
    job_id = rows.add_sized_job(database, 209 * GIB)
    before = rows.now(database)
    keep_true(database)
    first = rows.load(database, job_id)
    rows.add_worker(database, "small", 80 * GIB)
    keep_true(database)
    second = rows.load(database, job_id)
    assert first.waiting is not None
    assert second.waiting is not None
    assert first.waiting["message"] != second.waiting["message"]
    assert before <= first.waiting["since"] == second.waiting["since"] <= rows.now(database)
    with database.read() as session:
        shown = JobAnswer.model_validate(session.get_one(Job, job_id))
    assert shown.waiting_since == first.waiting["since"]


def test_what_is_true_already_is_not_said_again(database: Database) -> None:
    for _ in range(3):
        rows.add_sized_job(database, 209 * GIB)
    rows.add_sized_job(database, GIB)
    rows.add_worker(database, "small", 80 * GIB)
    assert keep_true(database) == 3
    assert keep_true(database) == 0


def test_a_claim_ends_the_waiting(database: Database) -> None:
    job_id = rows.add_sized_job(database, GIB)
    keep_true(database)
    rows.claim(database, job_id)
    assert rows.load(database, job_id).waiting is None


def test_a_job_that_waits_for_a_hub_goes_on_doing_so(database: Database) -> None:
    """It says nothing of workers before it is due."""
    job_id = rows.add_sized_job(database, GIB)
    lease = rows.claim(database, job_id)
    away = Waiting(WaitKind.HUB, "the Hub answered 503.", "publish")
    with database.write() as session:
        transitions.wait(session, lease, away, 60)
    assert keep_true(database) == 0
    assert rows.load(database, job_id).waiting == away.as_json()
    rows.add_worker(database, "w", 80 * GIB)
    rows.let_pass(database, job_id, 61)
    assert keep_true(database) == 0, "it is due, and a worker is there"


def test_jobs_that_another_version_queued_wait_as_well(database: Database) -> None:
    job_id = rows.add_job(database)
    with database.write() as session:
        session.execute(update(Job).values(needs_digest=None, needs=None, queue=None))
    keep_true(database)
    assert message(database, job_id) == "no worker is running."


def test_a_worker_of_another_version_counts_by_what_it_told(database: Database) -> None:
    job_id = rows.add_sized_job(database, 60 * GIB)
    rows.add_worker(database, "old", 80 * GIB, kind=None, queues=None, device="cuda:0 (H100)")
    keep_true(database)
    assert message(database, job_id) is None
    with database.write() as session:
        session.execute(update(Worker).values(memory_bytes=24 * GIB))
    keep_true(database)
    assert message(database, job_id) == "stage align needs 60.0 GiB of memory; the largest worker holds 24.0."


def test_running_jobs_wait_for_nobody(database: Database) -> None:
    job_id = rows.add_sized_job(database, 209 * GIB)
    with database.write() as session:
        assert leases.claim(session, job_id, "w", 60) is not None
    assert keep_true(database) == 0
