"""Quotas of jobs: never one more than allowed, also of two at once, and never at another tenant's cost; on both
databases."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from publisher.jobs import service, turns
from publisher.jobs.leases import Lease
from publisher.jobs.placement import keep_waiting_true
from publisher.jobs.quotas import QuotaExceeded
from publisher.jobs.transitions import finish_cancel
from publisher.plan.sizes import GIB
from publisher.settings import Settings
from publisher.store import quotas
from publisher.store.database import Database
from publisher.store.models import Tenant, Variant
from publisher.store.quotas import JOBS_QUEUED, JOBS_RUNNING, Quota, full_tenants, keep_defaults, limit_of, queued_jobs
from publisher.store.states import JobState
from tests.jobs import rows

Result = TypeVar("Result")


def limit(database: Database, tenant_id: str, quota: Quota, most: int | None) -> None:
    with database.write() as session:
        quotas.set_limit(session, session.get_one(Tenant, tenant_id), quota, most)


@pytest.fixture
def variant(database: Database) -> Variant:
    return rows.add_variant(database)


def take(database: Database, named: str, worker: str) -> Lease | None:
    with database.write() as session:
        return turns.take(session, named, worker, 60)


def at_once(work: Callable[[int], Result], number: int) -> list[Result]:
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(work, range(number)))


def test_one_more_queued_job_than_allowed_is_refused(database: Database, variant: Variant) -> None:
    limit(database, variant.tenant_id, JOBS_QUEUED, 2)
    for _ in range(2):
        rows.add_job(database, variant)
    with pytest.raises(QuotaExceeded, match="2 of your jobs wait in the queue; jobs_queued allows 2") as refused:
        rows.add_job(database, variant)
    assert (refused.value.status, refused.value.retry_after) == (429, 30)
    rows.add_job(database)  # somebody else's


def test_requests_at_once_do_not_overshoot(database: Database, variant: Variant) -> None:
    limit(database, variant.tenant_id, JOBS_QUEUED, 3)

    def ask(number: int) -> bool:
        try:
            rows.add_job(database, variant)
        except QuotaExceeded:
            return False
        return True

    assert sorted(at_once(ask, 8)) == [False] * 5 + [True] * 3
    with database.read() as session:
        assert queued_jobs(session, variant.tenant_id) == 3


def test_resuming_and_trying_again_are_refused_where_the_queue_is_full(database: Database, variant: Variant) -> None:
    paused, cancelled = rows.add_job(database, variant), rows.add_job(database, variant)
    with database.write() as session:
        service.pause(session, paused)
        service.cancel(session, cancelled)
    rows.add_job(database, variant)
    limit(database, variant.tenant_id, JOBS_QUEUED, 1)
    for act, job_id in ((service.resume, paused), (service.retry, cancelled)):
        with pytest.raises(QuotaExceeded), database.write() as session:
            act(session, job_id)
    assert rows.load(database, paused).state is JobState.PAUSED
    limit(database, variant.tenant_id, JOBS_QUEUED, None)
    with database.write() as session:
        service.resume(session, paused)


def test_jobs_beyond_the_limit_wait_and_hold_up_nobody_else(database: Database, variant: Variant) -> None:
    limit(database, variant.tenant_id, JOBS_RUNNING, 1)
    first, second = rows.add_job(database, variant), rows.add_job(database, variant)
    others = rows.add_job(database)
    for worker in ("w1", "w2", "w3"):
        rows.add_worker(database, worker, 80 * GIB)
    running = take(database, first, "w1")
    assert running is not None
    assert running.job_id == first
    taken = take(database, second, "w2")
    assert taken is not None
    assert taken.job_id == others
    assert take(database, second, "w3") is None
    assert rows.load(database, second).attempt == 0
    with database.write() as session:
        service.cancel(session, first)
    with database.write() as session:
        finish_cancel(session, running)
    again = take(database, second, "w3")
    assert again is not None
    assert again.job_id == second


def test_workers_that_claim_at_once_do_not_overshoot(database: Database, variant: Variant) -> None:
    limit(database, variant.tenant_id, JOBS_RUNNING, 2)
    jobs = [rows.add_job(database, variant) for _ in range(6)]
    for number in range(6):
        rows.add_worker(database, f"w{number}", 80 * GIB)
    at_once(lambda number: take(database, jobs[number], f"w{number}"), 6)
    states = [rows.load(database, job_id).state for job_id in jobs]
    assert states.count(JobState.RUNNING) == 2
    assert states.count(JobState.QUEUED) == 4


def test_workers_between_two_tenants_do_not_wait_for_each_other_for_ever(database: Database) -> None:
    tenants = [rows.add_variant(database) for _ in range(2)]
    for each in tenants:
        limit(database, each.tenant_id, JOBS_RUNNING, 1)
    jobs = [rows.add_job(database, tenants[number % 2]) for number in range(8)]
    for number in range(8):
        rows.add_worker(database, f"w{number}", 80 * GIB)
    at_once(lambda number: take(database, jobs[number], f"w{number}"), 8)
    running = [job for job in (rows.load(database, id) for id in jobs) if job.state is JobState.RUNNING]
    assert 1 <= len(running) <= 2
    assert len({job.tenant_id for job in running}) == len(running)


def test_a_job_says_that_it_waits_for_its_tenants_others_and_no_longer_when_more_may_run(
    database: Database, variant: Variant
) -> None:
    limit(database, variant.tenant_id, JOBS_RUNNING, 1)
    first, second = rows.add_job(database, variant), rows.add_job(database, variant)
    others = rows.add_job(database)
    rows.add_worker(database, "w1", 80 * GIB)
    take(database, first, "w1")
    assert keep_waiting_true(database, 60) == 1
    waiting = rows.load(database, second).waiting
    assert waiting is not None
    assert (waiting["kind"], waiting["message"]) == ("quota", "jobs_running allows 1 running at once.")
    assert rows.load(database, others).waiting is None
    assert keep_waiting_true(database, 60) == 0  # said already
    limit(database, variant.tenant_id, JOBS_RUNNING, 2)
    assert keep_waiting_true(database, 60) == 1
    assert rows.load(database, second).waiting is None


def test_a_tenants_own_limit_comes_before_the_settings_and_default_brings_them_back(
    database: Database, variant: Variant, settings: Settings
) -> None:
    changed = settings.model_copy(update={"quota_jobs_queued": 5})
    for now, default in ((changed, 5), (settings, None), (changed, 5)):
        keep_defaults(database, now)
        with database.read() as session:
            assert limit_of(session, variant.tenant_id, JOBS_QUEUED) == default
    for own in (7, 0, None):
        limit(database, variant.tenant_id, JOBS_QUEUED, own)
        with database.read() as session:
            assert limit_of(session, variant.tenant_id, JOBS_QUEUED) == own
    with database.write() as session:
        quotas.set_default(session, session.get_one(Tenant, variant.tenant_id), JOBS_QUEUED)
        assert limit_of(session, variant.tenant_id, JOBS_QUEUED) == 5


def test_processes_that_start_at_once_keep_the_same_defaults(database: Database, settings: Settings) -> None:
    changed = settings.model_copy(update={"quota_jobs_queued": 5, "quota_jobs_running": 2})
    at_once(lambda _: keep_defaults(database, changed), 6)
    with database.read() as session:
        assert limit_of(session, "ten_anybody", JOBS_RUNNING) == 2


def test_a_tenant_that_may_run_nothing_is_full_without_a_job(database: Database, variant: Variant) -> None:
    limit(database, variant.tenant_id, JOBS_RUNNING, 0)
    rows.add_variant(database)
    with database.read() as session:
        assert full_tenants(session) == {variant.tenant_id: 0}
