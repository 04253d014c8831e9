"""A suspended tenant's jobs wait and pause, whatever happens at the same moment, and nothing of them is lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from publisher.jobs import leases, service, transitions
from publisher.jobs.publishing import Intent
from publisher.jobs.reaper import Reaper
from publisher.jobs.suspension import pause_running, resume_tenant
from publisher.settings import Settings
from publisher.store import migrate, quotas, tenants
from publisher.store.database import Database
from publisher.store.models import Job, Tenant
from publisher.store.states import JobState
from tests.jobs import rows
from tests.servers import wait_until

INTENT = Intent(endpoint="https://hub.example", repo_id="org/small", parent="0" * 40, files={})


@pytest.fixture
def postgresql(postgresql_url: str) -> Iterator[Database]:
    """Where several write at once."""
    migrate.upgrade(postgresql_url)
    database = Database(postgresql_url)
    yield database
    database.close()


def suspend(database: Database, job_id: str) -> None:
    with database.write() as session:
        tenants.suspend(session, session.get_one(Tenant, session.get_one(Job, job_id).tenant_id))


def resume(database: Database, job_id: str) -> list[str]:
    with database.write() as session:
        return resume_tenant(session, session.get_one(Tenant, session.get_one(Job, job_id).tenant_id))


def test_a_queued_job_is_not_begun_until_its_tenant_is_resumed(database: Database) -> None:
    job_id, other = rows.add_job(database), rows.add_job(database)
    suspend(database, job_id)
    with database.write() as session:
        assert leases.claim(session, job_id, "w", 30) is None
        assert leases.claim(session, other, "w", 30) is not None
    assert rows.load(database, job_id).state is JobState.QUEUED
    resume(database, job_id)
    with database.write() as session:
        assert leases.claim(session, job_id, "w", 30) is not None


def test_a_job_that_was_claimed_at_that_moment_is_paused_by_the_next_look(database: Database) -> None:
    job_id = rows.add_job(database)
    rows.claim(database, job_id)
    suspend(database, job_id)
    with database.write() as session:
        assert pause_running(session) == [job_id]
    assert rows.load(database, job_id).state is JobState.PAUSING
    with database.write() as session:
        assert pause_running(session) == []


def test_jobs_of_others_run_on(database: Database) -> None:
    mine, other = rows.add_job(database), rows.add_job(database)
    for id in (mine, other):
        rows.claim(database, id)
    suspend(database, mine)
    with database.write() as session:
        assert pause_running(session) == [mine]
    assert rows.load(database, other).state is JobState.RUNNING


def test_a_job_that_publishes_already_ends_its_publication(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        leases.intend(session, lease, INTENT)
    suspend(database, job_id)
    with database.write() as session:
        assert pause_running(session) == []
    assert rows.load(database, job_id).state is JobState.RUNNING


def test_a_paused_job_goes_on_when_its_tenant_is_resumed_and_one_paused_before_does_not(database: Database) -> None:
    job_id, by_hand = rows.add_job(database), rows.add_job(database)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        session.get_one(Job, by_hand).tenant_id = session.get_one(Job, job_id).tenant_id
    with database.write() as session:
        service.pause(session, by_hand)
    suspend(database, job_id)
    with database.write() as session:
        pause_running(session)
    with database.write() as session:
        transitions.release(session, lease)
    assert rows.load(database, job_id).state is JobState.PAUSED
    assert resume(database, job_id) == [job_id]
    assert rows.load(database, job_id).state is JobState.QUEUED
    assert rows.load(database, by_hand).state is JobState.PAUSED


def test_whatever_its_quota_is_a_tenant_has_its_jobs_back(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    suspend(database, job_id)
    with database.write() as session:
        pause_running(session)
    with database.write() as session:
        transitions.release(session, lease)
        quotas.set_limit(
            session, session.get_one(Tenant, session.get_one(Job, job_id).tenant_id), quotas.JOBS_QUEUED, 0
        )
    assert resume(database, job_id) == [job_id]
    assert rows.load(database, job_id).state is JobState.QUEUED


def test_a_job_whose_tenant_is_resumed_at_that_moment_runs_on(
    postgresql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = rows.add_job(postgresql)
    rows.claim(postgresql, job_id)
    suspend(postgresql, job_id)
    pause = service.pause

    def resumed_before(session: Session, id: str, **more: Any) -> Job:
        resume(postgresql, id)
        return pause(session, id, **more)

    monkeypatch.setattr(service, "pause", resumed_before)
    with postgresql.write() as session:
        assert pause_running(session) == []
    assert rows.load(postgresql, job_id).state is JobState.RUNNING


def test_a_worker_that_stops_its_job_and_an_operator_who_resumes_do_not_wait_for_each_other(
    postgresql: Database,
) -> None:
    job_id = rows.add_job(postgresql)
    lease = rows.claim(postgresql, job_id)
    suspend(postgresql, job_id)
    with postgresql.write() as session:
        pause_running(session)
        tenant_id = session.get_one(Job, job_id).tenant_id

    def resumed() -> list[str]:
        with postgresql.write() as session:
            return resume_tenant(session, tenants.find_tenant(session, tenant_id, locked=False))

    with ThreadPoolExecutor(1) as pool:
        with postgresql.write() as session:
            transitions.release(session, lease)
            operator = pool.submit(resumed)
            wait_until(lambda: is_waiting(postgresql), "the operator's waiting")
        assert operator.result() == [job_id]
    assert rows.load(postgresql, job_id).state is JobState.QUEUED


def is_waiting(database: Database) -> bool:
    """Whether a transaction waits for another's lock."""
    with database.read() as session:
        return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


def test_the_reaper_pauses_what_was_claimed_at_that_moment(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    rows.claim(database, job_id)
    suspend(database, job_id)
    Reaper(database, settings).run_once()
    assert rows.load(database, job_id).state is JobState.PAUSING
