"""What a running job tells gets into the database whole and in order, or not at all once the lease is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from publisher.errors import JobCancelled, JobPaused, LeaseLost
from publisher.jobs import service, transitions
from publisher.jobs.leases import Lease
from publisher.recipe.stages import Stage
from publisher.settings import Settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.states import JobState
from tests import servers
from tests.jobs import rows
from tests.jobs.test_publishing import INTENT
from worker.jobs.reporter import JobReporter, WorkerStopping


@pytest.fixture
def job_id(database: Database) -> str:
    return rows.add_job(database)


@pytest.fixture
def lease(database: Database, job_id: str) -> Lease:
    return rows.claim(database, job_id, seconds=30)


def is_interrupted(reporter: JobReporter) -> bool:
    try:
        reporter.check()
    except (JobCancelled, JobPaused, LeaseLost):
        return True
    return False


def kinds(database: Database, job_id: str) -> list[str]:
    return [event.kind for event in rows.read_events(database, job_id) if event.kind != "state"]


def test_stages_metrics_and_logs_become_events_in_their_order(
    database: Database, settings: Settings, lease: Lease
) -> None:
    with JobReporter(database, lease, settings) as reporter:
        context = reporter.context(Stage.ALIGN)
        reporter.on_stage(Stage.ALIGN, "started", None)
        for step in range(1000):
            context.metric("loss", step, 1 / (step + 1))
        context.log("half way")
        reporter.on_stage(Stage.ALIGN, "finished", 2.5)
        reporter.finish(lambda session: transitions.succeed(session, lease, {}, {}, []))
    assert kinds(database, lease.job_id) == ["stage", *["metric"] * 1000, "log", "stage"]
    written = rows.read_events(database, lease.job_id)
    assert [event.seq for event in written] == list(range(1, len(written) + 1))
    assert [event.data["step"] for event in written if event.kind == "metric"] == list(range(1000))
    job = rows.load(database, lease.job_id)
    assert (job.stage, job.state) == ("align", JobState.SUCCEEDED)
    assert job.stages["align"].pop("peak_memory")["cpu"] > 0
    assert job.stages == {"align": {"state": "finished", "seconds": 2.5}}


def test_progress_is_thinned_out_but_its_last_word_is_kept(
    database: Database, settings: Settings, lease: Lease
) -> None:
    with JobReporter(database, lease, settings) as reporter:
        context = reporter.context(Stage.PRUNE)
        for done in range(10_000):
            context.progress(done + 1, 10_000, "tensors")
        reporter.on_stage(Stage.PRUNE, "finished", 1.0)
        reporter.finish(lambda session: transitions.succeed(session, lease, {}, {}, []))
    progress = [event.data for event in rows.read_events(database, lease.job_id) if event.kind == "progress"]
    assert len(progress) < 20
    assert progress[-1] == {"stage": "prune", "done": 10_000, "total": 10_000, "unit": "tensors"}
    assert kinds(database, lease.job_id)[-2:] == ["progress", "stage"]


def test_value_that_is_no_number_is_written_as_null(database: Database, settings: Settings, lease: Lease) -> None:
    with JobReporter(database, lease, settings) as reporter:
        reporter.context(Stage.ALIGN).metric("loss", 1, float("nan"))
        reporter.finish(lambda session: transitions.succeed(session, lease, {}, {}, []))
    metrics = [event.data for event in rows.read_events(database, lease.job_id) if event.kind == "metric"]
    assert metrics == [{"name": "loss", "step": 1, "value": None}]


def test_cancel_is_seen_within_seconds(database: Database, settings: Settings, lease: Lease) -> None:
    with JobReporter(database, lease, settings) as reporter:
        reporter.check()
        with database.write() as session:
            service.cancel(session, lease.job_id)
        servers.wait_until(lambda: is_interrupted(reporter), "cancel", 5)
        with pytest.raises(JobCancelled, match=lease.job_id):
            reporter.check()
        reporter.finish(lambda session: transitions.finish_cancel(session, lease))
    assert rows.load(database, lease.job_id).state is JobState.CANCELLED


def test_pause_is_seen_within_seconds(database: Database, settings: Settings, lease: Lease) -> None:
    with JobReporter(database, lease, settings) as reporter:
        reporter.context(Stage.ALIGN)
        with database.write() as session:
            service.pause(session, lease.job_id)
        servers.wait_until(lambda: is_interrupted(reporter), "pause", 5)
        with pytest.raises(JobPaused, match=lease.job_id):
            reporter.check()
        reporter.finish(lambda session: transitions.release(session, lease))
    assert rows.load(database, lease.job_id).state is JobState.PAUSED


def test_job_that_is_to_pause_sends_no_commit(database: Database, settings: Settings, lease: Lease) -> None:
    reporter = JobReporter(database, lease, settings)
    reporter.context(Stage.PUBLISH)
    with database.write() as session:
        service.pause(session, lease.job_id)
    with pytest.raises(JobPaused):
        reporter.intend(INTENT)
    reporter._pulse()
    with pytest.raises(JobPaused):
        reporter.check()
    with database.write() as session:
        service.resume(session, lease.job_id)
    reporter._pulse()
    reporter.check()
    reporter.intend(INTENT)


def test_heartbeat_keeps_the_lease(database: Database, settings: Settings, lease: Lease) -> None:
    before = rows.load(database, lease.job_id).lease_expires_at
    assert before is not None
    often = settings.model_copy(update={"heartbeat_seconds": 0.5})
    with JobReporter(database, lease, often):
        servers.wait_until(
            lambda: (rows.load(database, lease.job_id).lease_expires_at or 0) > before + 2, "third heartbeat"
        )


def test_worker_whose_job_another_has_stops_and_writes_nothing(
    database: Database, settings: Settings, lease: Lease
) -> None:
    with JobReporter(database, lease, settings) as reporter:
        with database.write() as session:
            transitions.release(session, lease)
        rows.claim(database, lease.job_id, "w2")
        before = rows.read_events(database, lease.job_id)
        reporter.context(Stage.ALIGN).log("still here")
        servers.wait_until(lambda: is_interrupted(reporter), "loss of the lease", 5)
        with pytest.raises(LeaseLost):
            reporter.finish(lambda session: transitions.succeed(session, lease, {"commit": "x"}, {}, []))
    assert rows.read_events(database, lease.job_id) == before


def test_first_reason_to_stop_counts(database: Database, settings: Settings, lease: Lease) -> None:
    reporter = JobReporter(database, lease, settings)
    reporter.interrupt(WorkerStopping("the worker shuts down."))
    reporter.interrupt(JobCancelled("cancelled, too"))
    with pytest.raises(WorkerStopping):
        reporter.check()


@pytest.fixture
def remote(postgresql_url: str) -> Iterator[Database]:
    """A PostgreSQL database that tests take away."""
    migrate.upgrade(postgresql_url)
    database = Database(postgresql_url)
    yield database
    database.close()


@contextmanager
def taken_away(server: str, database: Database) -> Iterator[None]:
    """Nobody gets a connection to the database, and those that there are end."""
    name = database.engine.url.database
    assert name is not None
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(Identifier(name)))
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        yield
        connection.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(Identifier(name)))


def test_database_that_is_away_for_a_while_costs_nothing(
    remote: Database, postgresql_server: str, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    lease = rows.claim(remote, rows.add_job(remote))
    with JobReporter(remote, lease, settings) as reporter:
        context = reporter.context(Stage.ALIGN)
        with taken_away(postgresql_server, remote):
            for step in range(100):
                context.metric("loss", step, 1.0)
            servers.wait_until(lambda: "100 events" in caplog.text, "a failed write", 10)
            context.progress(1, 2, "steps")
        reporter.finish(lambda session: transitions.succeed(session, lease, {}, {}, []))
    written = rows.read_events(remote, lease.job_id)
    assert [event.data["step"] for event in written if event.kind == "metric"] == list(range(100))
    assert written[-1].data["state"] == "succeeded"


def test_database_that_stays_away_ends_the_try(remote: Database, postgresql_server: str, settings: Settings) -> None:
    lease = rows.claim(remote, rows.add_job(remote))
    brief = settings.model_copy(update={"lease_seconds": 2, "heartbeat_seconds": 0.5})
    with JobReporter(remote, lease, brief) as reporter, taken_away(postgresql_server, remote):
        servers.wait_until(lambda: is_interrupted(reporter), "loss of the lease", 20)
        with pytest.raises(LeaseLost):
            reporter.check()
