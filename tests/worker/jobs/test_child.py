"""A job's process says what went wrong to the job's people, and where in its code to the worker's log alone."""

from __future__ import annotations

import logging
import os
import time
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from publisher.errors import OutOfDisk
from publisher.settings import Settings, forget_secrets
from publisher.store.database import Database
from publisher.store.models import Job
from publisher.store.states import JobState
from tests.jobs import rows
from worker.jobs.child import JobProcess
from worker.jobs.reporter import JobReporter


class OnAFullDisk(JobProcess):
    """A build that finds no room."""

    def _build(self) -> None:
        raise OutOfDisk("stage align needs about 12 GiB under /data, 3.0 GiB are free.", way_out="Free space.")


class Breaking(JobProcess):
    """A build that stumbles over a mistake of ours."""

    def _build(self) -> None:
        raise KeyError("layer 7")


def run(kind: type[JobProcess], database: Database, settings: Settings, job_id: str) -> None:
    lease = rows.claim(database, job_id)
    with JobReporter(database, lease, settings) as reporter:
        reporter.stage = "prune"
        kind(database, settings, lease, reporter).run()


def test_a_traceback_is_in_the_worker_s_log_and_its_number_in_the_job(
    database: Database, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = rows.add_job(database)
    with caplog.at_level(logging.ERROR):
        run(Breaking, database, settings, job_id)
    told = str([event.data for event in rows.read_events(database, job_id)])
    assert "Traceback" not in told
    assert "child.py" not in told
    failure = rows.load(database, job_id).failure
    assert failure is not None
    assert "layer 7" in failure["message"]
    assert "Traceback" in caplog.text
    assert f"error {failure['error_id']}" in caplog.text


class Quoting(JobProcess):
    """A build that stumbles over a library's error which quotes settings."""

    def _build(self) -> None:
        quoted = self._settings.resolved_broker_url
        raise ValueError(f"cannot use {quoted} with {self._settings.secret_bytes().decode()} and old-one")


def test_an_error_that_quotes_a_secret_is_told_and_logged_without_it(
    database: Database, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    secret, password = "a secret of 32 bytes or so, planted", "p@ss/word-planted"
    given = {"secret": SecretStr(secret), "old_secrets": SecretStr("old-one\nolder"), "broker_url": "redis://broker/0"}
    chosen = Settings(data_dir=settings.data_dir, broker_password=SecretStr(password), **given)
    job_id = rows.add_job(database)
    with caplog.at_level(logging.ERROR):
        run(Quoting, database, chosen, job_id)
    told = [event.data for event in rows.read_events(database, job_id)]
    shown = f"{told} {rows.load(database, job_id).failure} {caplog.text}"
    assert "Traceback" in shown
    assert "redis://:***@broker/0 with ***" in shown
    for text in (secret, password, quote(password, safe=""), "old-one"):
        assert text not in shown


def test_what_a_job_starts_inherits_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLISHER_SECRET", "planted")
    monkeypatch.setenv("PUBLISHER_BROKER_PASSWORD", "planted")
    monkeypatch.setenv("PUBLISHER_WORKER_DEVICE", "cpu")
    forget_secrets()
    assert "planted" not in os.environ.values()
    assert os.environ["PUBLISHER_WORKER_DEVICE"] == "cpu"


def test_a_mistake_of_ours_is_tried_twice(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    run(Breaking, database, settings, job_id)
    rows.let_pass(database, job_id, 3600)
    assert rows.load(database, job_id).state is JobState.QUEUED
    run(Breaking, database, settings, job_id)
    job = rows.load(database, job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, 2)


def test_a_job_that_finds_no_room_waits_for_it_and_no_try_is_counted(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    for _ in range(settings.max_attempts + 2):
        run(OnAFullDisk, database, settings, job_id)
        rows.let_pass(database, job_id, 3600)
    job = rows.load(database, job_id)
    assert (job.state, job.attempt, job.failure) == (JobState.QUEUED, 0, None)
    assert job.waiting == {
        "kind": "disk",
        "message": "stage align needs about 12 GiB under /data, 3.0 GiB are free.",
        "stage": "prune",
        "way_out": "Free space.",
    }


def test_a_job_looks_for_room_again_after_a_while(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    run(OnAFullDisk, database, settings, job_id)
    assert rows.load(database, job_id).claimable_at == pytest.approx(time.time() + settings.disk_look_seconds, abs=5)


def test_patience_for_room_ends(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    run(OnAFullDisk, database, settings, job_id)
    rows.let_pass(database, job_id, 3600)
    with database.write() as session:
        session.get_one(Job, job_id).waiting_since = time.time() - settings.disk_patience_seconds - 60
    run(OnAFullDisk, database, settings, job_id)
    job = rows.load(database, job_id)
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert (job.failure["blame"], job.failure["way_out"]) == ("infrastructure", "Free space.")
