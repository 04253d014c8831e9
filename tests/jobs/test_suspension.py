"""A suspended tenant's jobs wait and pause, whatever happens at the same moment, and nothing of them is lost."""

from __future__ import annotations

from publisher.jobs import leases, service, transitions
from publisher.jobs.publishing import Intent
from publisher.jobs.reaper import Reaper
from publisher.jobs.suspension import pause_running, resume_tenant
from publisher.settings import Settings
from publisher.store import tenants
from publisher.store.database import Database
from publisher.store.models import Job, Tenant
from publisher.store.states import JobState
from tests.jobs import rows

INTENT = Intent(endpoint="https://hub.example", repo_id="org/small", parent="0" * 40, files={})


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


def test_the_reaper_pauses_what_was_claimed_at_that_moment(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    rows.claim(database, job_id)
    suspend(database, job_id)
    Reaper(database, settings).run_once()
    assert rows.load(database, job_id).state is JobState.PAUSING
