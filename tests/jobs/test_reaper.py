"""Nothing gets lost: silent workers, wiped and absent brokers, several reapers at once."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError

from publisher.jobs import leases, service
from publisher.jobs.dispatch import Dispatcher
from publisher.jobs.reaper import Reaper
from publisher.plan.sizes import GIB
from publisher.settings import Settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.faults import is_out_of_disk, why_away
from publisher.store.models import Job, Worker
from publisher.store.states import JobState
from tests import servers
from tests.jobs import rows


@pytest.fixture(params=["filesystem", "redis"])
def broker_url(request: pytest.FixtureRequest) -> str:
    return "filesystem://" if request.param == "filesystem" else str(request.getfixturevalue("redis_url"))


@pytest.fixture
def settings(settings: Settings, broker_url: str) -> Settings:
    return settings.model_copy(update={"broker_url": broker_url})


def messages(settings: Settings) -> int:
    """How many messages wait in the broker."""
    return sum(rows.waiting_messages(settings).values())


def wipe(settings: Settings) -> None:
    """All messages are gone."""
    if settings.broker_url.startswith("redis"):
        with redis.Redis.from_url(settings.broker_url) as client:
            client.flushall()
    else:
        for message in (settings.data_dir / "broker" / "messages").iterdir():
            message.unlink()


def test_what_a_full_disk_rolled_back_is_not_reported_as_done(
    sqlite_url: str, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite's own refusal: the database may not grow by a single page."""
    migrate.upgrade(sqlite_url)
    full = Database(sqlite_url)
    for number in range(20):
        job_id = rows.add_job(full)
        rows.claim(full, job_id, worker=f"w{number}")
        rows.let_pass(full, job_id, 3600)
    event.listen(full.engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = 1"))
    full.engine.dispose()
    reaper = Reaper(full, settings)
    with caplog.at_level(logging.WARNING), pytest.raises(OperationalError) as refused:
        reaper.run_once()
    assert "It is queued now" not in caplog.text
    assert is_out_of_disk(refused.value)
    assert "the disk that holds the database is full" in why_away(refused.value)
    with full.read() as session:
        assert set(session.scalars(select(Job.state))) == {JobState.RUNNING}
    full.close()


def test_a_server_that_is_away_is_no_full_disk() -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(OperationalError) as refused, away.read() as session:
        session.execute(select(1))
    assert not is_out_of_disk(refused.value)
    assert why_away(refused.value).startswith("database is away: ")
    away.close()


def test_job_of_a_silent_worker_is_queued_again_and_claimed_by_another(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    rows.claim(database, job_id, "dead", seconds=30)
    reaper = Reaper(database, settings)
    reaper.run_once()
    assert rows.load(database, job_id).state is JobState.RUNNING
    rows.let_pass(database, job_id, 31)
    reaper.run_once()
    job = rows.load(database, job_id)
    assert job.state is JobState.QUEUED
    assert job.failure is not None
    assert "dead has been silent" in job.failure["message"]
    rows.let_pass(database, job_id, 3600)
    reaper.run_once()
    assert messages(settings) == 1
    assert rows.claim(database, job_id, "alive").token == 2


def test_job_whose_worker_dies_every_time_fails_in_the_end(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    reaper = Reaper(database, settings)
    for _ in range(settings.max_attempts):
        rows.let_pass(database, job_id, 3600)
        rows.claim(database, job_id)
        rows.let_pass(database, job_id, 3600)
        reaper.run_once()
    job = rows.load(database, job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, settings.max_attempts)


def test_cancelling_job_of_a_silent_worker_is_cancelled(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    rows.claim(database, job_id)
    with database.write() as session:
        service.cancel(session, job_id)
    rows.let_pass(database, job_id, 3600)
    Reaper(database, settings).run_once()
    assert rows.load(database, job_id).state is JobState.CANCELLED


def test_job_that_was_never_sent_is_sent_once(database: Database, settings: Settings) -> None:
    rows.add_job(database)
    reaper = Reaper(database, settings)
    reaper.run_once()
    reaper.run_once()
    assert messages(settings) == 1


def test_message_lost_by_the_broker_is_sent_again_when_a_worker_is_idle(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    assert Dispatcher(database, settings).send(job_id)
    assert messages(settings) == 1
    wipe(settings)
    rows.add_worker(database, "idle")
    reaper = Reaper(database, settings)
    reaper.run_once()
    assert messages(settings) == 0
    rows.let_pass(database, job_id, settings.redispatch_seconds + 1)
    reaper.run_once()
    assert messages(settings) == 1


def test_it_is_sent_to_an_idle_worker_that_holds_it_and_to_no_other(database: Database, settings: Settings) -> None:
    """Others might use the message up, and take nothing."""
    job_id = rows.add_sized_job(database, 40 * GIB)
    rows.add_worker(database, "small", 24 * GIB)
    rows.add_worker(database, "busy", 80 * GIB)
    rows.claim(database, rows.add_job(database), "busy")
    reaper = Reaper(database, settings)
    reaper.run_once()
    wipe(settings)
    rows.let_pass(database, job_id, settings.redispatch_seconds + 1)
    reaper.run_once()
    assert messages(settings) == 0
    rows.add_worker(database, "idle", 80 * GIB)
    reaper.run_once()
    assert rows.waiting_messages(settings) == {"publisher-at-idle": 1}


def test_idle_workers_get_a_job_each_the_most_urgent_ones(database: Database, settings: Settings) -> None:
    jobs = [rows.add_sized_job(database, GIB, priority=priority) for priority in (0, 2, 1)]
    for name in ("one", "two"):
        rows.add_worker(database, name, 80 * GIB)
    reaper = Reaper(database, settings)
    reaper.run_once()
    wipe(settings)
    for job_id in jobs:
        rows.let_pass(database, job_id, settings.redispatch_seconds + 1)
    reaper.run_once()
    assert rows.waiting_messages(settings) == {"publisher-at-one": 1, "publisher-at-two": 1}
    late = [job_id for job_id in jobs if (rows.load(database, job_id).dispatched_at or 0) < rows.now(database) - 10]
    assert late == [jobs[0]]


def test_a_worker_of_another_version_gets_them_by_the_one_queue_that_it_knows(
    database: Database, settings: Settings
) -> None:
    job_id = rows.add_sized_job(database, GIB)
    rows.add_worker(database, "old", kind=None, queues=None)
    reaper = Reaper(database, settings)
    reaper.run_once()
    wipe(settings)
    rows.let_pass(database, job_id, settings.redispatch_seconds + 1)
    reaper.run_once()
    assert rows.waiting_messages(settings) == {"publisher": 1}


def test_jobs_go_to_the_queue_of_their_size(database: Database, settings: Settings) -> None:
    for memory, gpu in ((40 * GIB, True), (3 * GIB, True), (3 * GIB, False)):
        rows.add_sized_job(database, memory, gpu=gpu)
    Reaper(database, settings).run_once()
    assert rows.waiting_messages(settings) == {"publisher-64": 1, "publisher-4": 1, "publisher-cpu": 1}


def test_a_worker_that_is_long_gone_leaves_nothing_but_the_last_one_its_speed(
    database: Database, settings: Settings
) -> None:
    job_id = rows.add_sized_job(database, GIB)
    for name in ("older", "last"):
        rows.add_worker(database, name, 80 * GIB)
    reaper = Reaper(database, settings)
    reaper.run_once()
    wipe(settings)
    rows.let_pass(database, job_id, settings.redispatch_seconds + 1)
    rows.last_seen(database, "last", 60)
    reaper.run_once()
    assert rows.waiting_messages(settings) == {"publisher-at-older": 1}
    rows.last_seen(database, "older", 3 * 86_400)
    rows.last_seen(database, "last", 2 * 86_400)
    reaper.run_once()
    with database.read() as session:
        assert list(session.scalars(select(Worker.id))) == ["last"]
    assert rows.waiting_messages(settings)["publisher-at-older"] == 0


def test_a_round_tells_jobs_what_they_wait_for(database: Database, settings: Settings) -> None:
    job_id = rows.add_sized_job(database, GIB)
    Reaper(database, settings).run_once()
    waiting = rows.load(database, job_id).waiting
    assert waiting is not None
    assert waiting["message"] == "no worker is running."


def test_busy_workers_do_not_fill_the_broker_with_repeats(database: Database, settings: Settings) -> None:
    rows.add_worker(database, "busy")
    rows.claim(database, rows.add_job(database), "busy")
    waiting = rows.add_job(database)
    reaper = Reaper(database, settings)
    for _ in range(5):
        reaper.run_once()
        rows.let_pass(database, waiting, settings.redispatch_seconds + 1)
    assert messages(settings) == 1


def test_reapers_of_several_replicas_send_each_job_once(database: Database, settings: Settings) -> None:
    for _ in range(10):
        rows.add_job(database)
    reapers = [Reaper(database, settings) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Reaper.run_once, reapers))
    assert messages(settings) == 10


def test_reapers_of_several_replicas_count_one_failed_try(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    rows.claim(database, job_id)
    rows.let_pass(database, job_id, 3600)
    reapers = [Reaper(database, settings) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Reaper.run_once, reapers))
    assert rows.states(database, job_id) == ["queued", "running", "queued"]


def test_thread_finds_a_lost_job_by_itself_and_stops(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    rows.claim(database, job_id, seconds=0.01)
    reaper = Reaper(database, settings.model_copy(update={"reaper_seconds": 0.05}))
    reaper.start()
    servers.wait_until(lambda: rows.load(database, job_id).state is JobState.QUEUED, "requeue")
    reaper.stop()
    with database.write() as session:
        assert leases.claim(session, job_id, "w2", 60) is None
