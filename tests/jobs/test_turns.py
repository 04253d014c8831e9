"""Which job a worker gets: one that it holds, the most urgent of those, the oldest of equals; on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from publisher.jobs import events, turns
from publisher.jobs.leases import Lease
from publisher.plan.sizes import GIB
from publisher.store.database import Database
from publisher.store.models import Job
from publisher.store.states import JobState
from tests.jobs import rows


def take(database: Database, named: str, worker: str) -> Lease | None:
    with database.write() as session:
        return turns.take(session, named, worker, 60)


def taken(database: Database, named: str, worker: str) -> str | None:
    lease = take(database, named, worker)
    return lease and lease.job_id


def test_a_job_that_a_worker_does_not_hold_stays_queued_at_no_cost(database: Database) -> None:
    large = rows.add_sized_job(database, 200 * GIB)
    rows.add_worker(database, "small", 80 * GIB)
    rows.add_worker(database, "large", 250 * GIB)
    assert take(database, large, "small") is None
    job = rows.load(database, large)
    assert (job.state, job.attempt, job.lease_token) == (JobState.QUEUED, 0, 0)
    assert taken(database, large, "large") == large


def test_a_worker_takes_what_it_holds_though_the_message_names_another(database: Database) -> None:
    large, small = rows.add_sized_job(database, 200 * GIB), rows.add_sized_job(database, GIB)
    rows.add_worker(database, "small", 80 * GIB)
    assert taken(database, large, "small") == small


def test_urgent_jobs_come_first_and_of_equal_ones_the_oldest(database: Database) -> None:
    first, second = rows.add_sized_job(database, GIB), rows.add_sized_job(database, GIB)
    urgent, later = rows.add_sized_job(database, GIB, priority=5), rows.add_sized_job(database, GIB, priority=-5)
    rows.add_worker(database, "w", 80 * GIB)
    order = [taken(database, later, "w") for _ in range(5)]
    assert order == [urgent, first, second, later, None]


def test_jobs_that_are_not_due_do_not_hold_up_others(database: Database) -> None:
    later, now = rows.add_sized_job(database, GIB, priority=9), rows.add_sized_job(database, GIB)
    with database.write() as session:
        session.execute(update(Job).where(Job.id == later).values(claimable_at=2e10))
    rows.add_worker(database, "w", 80 * GIB)
    assert taken(database, later, "w") == now


def test_many_jobs_that_are_too_large_do_not_hide_one_that_fits(database: Database) -> None:
    for _ in range(25):
        rows.add_sized_job(database, 200 * GIB)
    small = rows.add_sized_job(database, GIB)
    rows.add_worker(database, "small", 80 * GIB)
    assert taken(database, small, "small") == small


def test_a_job_whose_message_was_used_up_is_marked_to_be_sent_again(database: Database) -> None:
    named, urgent = rows.add_sized_job(database, GIB), rows.add_sized_job(database, GIB, priority=1)
    large = rows.add_sized_job(database, 200 * GIB)
    with database.write() as session:
        session.execute(update(Job).values(dispatched_at=1e10))
    rows.add_worker(database, "w", 80 * GIB)
    assert taken(database, named, "w") == urgent
    assert rows.load(database, named).dispatched_at == 0
    assert taken(database, large, "w") == named
    assert rows.load(database, large).dispatched_at == 0


def test_a_gpu_is_preferred_for_what_computes_and_a_cpu_does_the_rest(database: Database) -> None:
    computing = rows.add_sized_job(database, 8 * GIB)
    reading = rows.add_sized_job(database, 8 * GIB, gpu=False)
    rows.add_worker(database, "cpu", 500 * GIB)
    rows.add_worker(database, "gpu", 80 * GIB, kind="gpu", device="cuda:0 (H100)")
    assert taken(database, computing, "cpu") == reading
    assert take(database, computing, "cpu") is None
    assert taken(database, computing, "gpu") == computing


def test_without_a_gpu_that_holds_it_a_cpu_computes(database: Database) -> None:
    large = rows.add_sized_job(database, 200 * GIB)
    rows.add_worker(database, "cpu", 500 * GIB)
    rows.add_worker(database, "gpu", 80 * GIB, kind="gpu", device="cuda:0 (H100)")
    assert taken(database, large, "cpu") == large


def test_a_worker_that_was_not_seen_lately_is_not_waited_for(database: Database) -> None:
    job_id = rows.add_sized_job(database, 8 * GIB)
    rows.add_worker(database, "cpu", 500 * GIB)
    rows.add_worker(database, "gpu", 80 * GIB, kind="gpu", device="cuda:0 (H100)")
    rows.last_seen(database, "gpu", 3600)
    assert taken(database, job_id, "cpu") == job_id


@pytest.mark.parametrize(("queues", "gets"), [(["cpu"], False), (["8", "16"], True)])
def test_a_worker_takes_jobs_of_its_queues_alone(database: Database, queues: list[str], gets: bool) -> None:
    job_id = rows.add_sized_job(database, 12 * GIB)
    rows.add_worker(database, "w", 80 * GIB, queues=queues)
    assert taken(database, job_id, "w") == (job_id if gets else None)


def test_of_many_workers_each_gets_one_job_and_none_gets_two(database: Database) -> None:
    jobs = [rows.add_sized_job(database, GIB) for _ in range(6)]
    for number in range(8):
        rows.add_worker(database, f"w{number}", 80 * GIB)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda number: taken(database, jobs[0], f"w{number}"), range(8)))
    assert sorted(job for job in got if job) == jobs


def test_what_a_job_of_an_older_version_needs_is_worked_out_when_it_is_its_turn(database: Database) -> None:
    job_id = rows.add_job(database)
    with database.write() as session:
        session.execute(update(Job).values(needs_digest=None, queue=None))
    rows.add_worker(database, "w")
    assert taken(database, job_id, "w") == job_id
    assert rows.load(database, job_id).needs_digest is not None


def test_a_message_for_a_job_that_is_over_claims_another_that_waits(database: Database) -> None:
    over, waiting = rows.add_job(database), rows.add_job(database)
    with database.write() as session:
        events.move(session, over, JobState.CANCELLED, only_from=[JobState.QUEUED])
    rows.add_worker(database, "w")
    assert taken(database, over, "w") == waiting
    assert take(database, over, "w") is None


def test_a_worker_of_which_nothing_is_known_takes_the_job_that_its_message_names(database: Database) -> None:
    older, named = rows.add_job(database), rows.add_job(database)
    assert taken(database, named, "stranger") == named
    assert rows.load(database, older).state is JobState.QUEUED
