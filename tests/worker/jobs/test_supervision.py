"""What a worker does for its job's process: keep its lease while it starts, stop it by force, end its try."""

from __future__ import annotations

import subprocess
import sys

import pytest

from publisher.jobs import leases, service, transitions
from publisher.jobs.leases import Lease
from publisher.settings import Settings
from publisher.store.database import Database
from publisher.store.states import JobState
from tests.jobs import rows
from tests.jobs.test_publishing import INTENT
from worker.jobs import supervision
from worker.jobs.supervision import LEFT_OPEN, Supervision, start_child


@pytest.mark.parametrize("publishing", [True, False])
def test_cancel_is_enforced_unless_only_the_hub_knows_how_the_job_ends(
    database: Database, settings: Settings, publishing: bool
) -> None:
    lease = rows.claim(database, rows.add_job(database), seconds=10 * settings.cancel_grace_seconds)
    with database.write() as session:
        if publishing:
            leases.intend(session, lease, INTENT)
        service.cancel(session, lease.job_id)
    supervision = Supervision(database, settings, lease, lambda: False)
    assert not supervision._is_overdue()
    rows.let_pass(database, lease.job_id, settings.cancel_grace_seconds + 1)
    assert supervision._is_overdue() is not publishing


def expiry(database: Database, lease: Lease) -> float:
    found = rows.load(database, lease.job_id).lease_expires_at
    assert found is not None
    return found


@pytest.fixture
def impatient(settings: Settings) -> Settings:
    """At every look it is time for a heartbeat."""
    return settings.model_copy(update={"heartbeat_seconds": 0.0})


def test_lease_is_kept_for_a_process_that_starts_until_it_renews_it_itself(
    database: Database, impatient: Settings
) -> None:
    lease = rows.claim(database, rows.add_job(database), seconds=1)
    watching = Supervision(database, impatient, lease, lambda: False)
    for _ in range(2):
        before = expiry(database, lease)
        assert not watching._is_overdue()
        assert expiry(database, lease) > before
    with database.write() as session:
        leases.renew(session, lease, impatient.lease_seconds)
    before = expiry(database, lease)
    for _ in range(2):  # one that fell silent then is lost
        assert not watching._is_overdue()
        assert expiry(database, lease) == before


def test_lease_of_a_process_that_never_starts_runs_out(
    database: Database, impatient: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "START_SECONDS", 0.0)
    lease = rows.claim(database, rows.add_job(database), seconds=1)
    before = expiry(database, lease)
    assert not Supervision(database, impatient, lease, lambda: False)._is_overdue()
    assert expiry(database, lease) == before


def test_lease_that_another_worker_has_is_not_renewed(database: Database, impatient: Settings) -> None:
    lease = rows.claim(database, rows.add_job(database))
    with database.write() as session:
        transitions.release(session, lease)
    other = rows.claim(database, lease.job_id, "w2")
    before = expiry(database, other)
    assert Supervision(database, impatient, lease, lambda: False)._is_overdue()
    assert expiry(database, other) == before


@pytest.mark.parametrize("status", [LEFT_OPEN, 1, -9])
def test_try_that_its_process_did_not_end_is_ended_by_the_worker(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    lease = rows.claim(database, rows.add_job(database))
    code = f"import os; os.kill(os.getpid(), {-status})" if status < 0 else f"raise SystemExit({status})"

    def start(_: Lease) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-I", "-S", "-c", code], start_new_session=True)

    monkeypatch.setattr(supervision, "start_child", start)
    Supervision(database, settings, lease, lambda: False).run()
    job = rows.load(database, lease.job_id)
    assert job.state is JobState.QUEUED
    assert job.failure is not None
    assert job.failure["blame"] == "infrastructure"


def test_process_whose_lease_is_over_leaves_its_try_to_the_worker(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "PUBLISHER_DATABASE_URL",
        database.engine.url.set(drivername=database.engine.dialect.name).render_as_string(hide_password=False),
    )
    monkeypatch.setenv("PUBLISHER_DATA_DIR", str(settings.data_dir))
    lease = rows.claim(database, rows.add_job(database))
    with database.write() as session:
        transitions.release(session, lease)
    assert start_child(lease).wait(60) == LEFT_OPEN
