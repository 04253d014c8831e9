"""One worker at a time: claims, renewals and refused writes, on both databases."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier

import pytest

from publisher.errors import LeaseLost
from publisher.jobs import events, leases, service, transitions
from publisher.jobs.events import NewEvent
from publisher.jobs.leases import Lease
from publisher.jobs.reaper import Reaper
from publisher.jobs.transitions import Blame, Failure, RetryPolicy
from publisher.settings import Settings
from publisher.store.database import Database
from publisher.store.models import Variant
from publisher.store.states import EventKind, JobState
from tests.jobs import rows

LOG = [NewEvent(EventKind.LOG, {"message": "still here"})]


def test_of_many_threads_one_gets_the_job(database: Database) -> None:
    job_id = rows.add_job(database)

    def try_to_claim(number: int) -> Lease | None:
        with database.write() as session:
            return leases.claim(session, job_id, f"w{number}", 60)

    with ThreadPoolExecutor(16) as pool:
        claimed = [lease for lease in pool.map(try_to_claim, range(64)) if lease is not None]
    assert claimed == [Lease(job_id, 1)]
    assert rows.load(database, job_id).attempt == 1


def _claim_all(url: str, job_ids: list[str], start: Barrier, worker: str) -> None:
    database = Database(url)
    start.wait()
    for job_id in job_ids:
        with database.write() as session:
            lease = leases.claim(session, job_id, worker, 60)
        if lease is not None:
            with database.write() as session:
                events.append(session, job_id, lease.token, [NewEvent(EventKind.LOG, {"message": worker})])


def test_of_many_processes_one_gets_each_job(database: Database, database_url: str) -> None:
    job_ids = [rows.add_job(database) for _ in range(20)]
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    processes = [context.Process(target=_claim_all, args=(database_url, job_ids, start, f"w{n}")) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    for job_id in job_ids:
        assert len([event for event in rows.read_events(database, job_id) if event.kind == "log"]) == 1
        assert rows.load(database, job_id).lease_token == 1


def test_task_delivered_twice_is_run_once(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        assert leases.claim(session, job_id, "w1", 60) is None
        transitions.succeed(session, lease, {}, {}, [])
        assert leases.claim(session, job_id, "w1", 60) is None


def test_job_is_not_claimed_before_its_time(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        transitions.fail(session, lease, Failure(Blame.INFRASTRUCTURE, None, "disk full"), RetryPolicy(3, 100))
        assert leases.claim(session, job_id, "w2", 60) is None
    rows.let_pass(database, job_id, 101)
    assert rows.claim(database, job_id, "w2").token == 2


def test_renewed_lease_is_not_reaped(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id, seconds=10)
    rows.let_pass(database, job_id, 11)
    with database.write() as session:
        assert leases.renew(session, lease, 10) is JobState.RUNNING
    Reaper(database, settings).run_once()
    assert rows.load(database, job_id).state is JobState.RUNNING


def test_every_write_of_a_worker_that_lost_its_lease_is_refused(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    stale = rows.claim(database, job_id, seconds=10)
    rows.let_pass(database, job_id, 11)
    Reaper(database, settings).run_once()
    _assert_refused(database, stale)
    rows.let_pass(database, job_id, 3600)
    rows.claim(database, job_id, "w2")
    before = rows.load(database, job_id)
    _assert_refused(database, stale)
    after = rows.load(database, job_id)
    assert (after.state, after.event_seq, after.worker) == (JobState.RUNNING, before.event_seq, "w2")
    with database.read() as session:
        assert session.get_one(Variant, after.variant_id).publication is None


def _assert_refused(database: Database, stale: Lease) -> None:
    failure = Failure(Blame.REQUEST, None, "bad")
    with database.write() as session, pytest.raises(LeaseLost):
        leases.renew(session, stale, 60)
    with database.write() as session, pytest.raises(LeaseLost):
        leases.status(session, stale)
    with database.write() as session, pytest.raises(LeaseLost):
        events.append(session, stale.job_id, stale.token, LOG)
    with database.write() as session, pytest.raises(LeaseLost):
        leases.report(session, stale, [], "prune", {})
    with database.write() as session, pytest.raises(LeaseLost):
        transitions.succeed(session, stale, {"commit": "x"}, {}, [])
    with database.write() as session, pytest.raises(LeaseLost):
        transitions.fail(session, stale, failure, RetryPolicy(3, 0))
    with database.write() as session, pytest.raises(LeaseLost):
        transitions.finish_cancel(session, stale)
    with database.write() as session, pytest.raises(LeaseLost):
        transitions.release(session, stale)


def test_worker_sees_that_its_job_is_to_stop(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        assert leases.status(session, lease).stopping_for is None
        service.cancel(session, job_id)
    rows.let_pass(database, job_id, 40)
    with database.write() as session:
        assert leases.renew(session, lease, 60) is JobState.CANCELLING
        assert leases.status(session, lease).stopping_for == pytest.approx(40, abs=5)
