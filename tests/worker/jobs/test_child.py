"""A job's process says what went wrong to the job's people, and where in its code to the worker's log alone."""

from __future__ import annotations

import logging

import pytest

from publisher.settings import Settings
from publisher.store.database import Database
from publisher.store.states import JobState
from tests.jobs import rows
from worker.jobs.child import JobProcess
from worker.jobs.reporter import JobReporter


class Breaking(JobProcess):
    """A build that stumbles over a mistake of ours."""

    def _build(self) -> None:
        raise KeyError("layer 7")


def run_breaking(database: Database, settings: Settings, job_id: str) -> None:
    lease = rows.claim(database, job_id)
    with JobReporter(database, lease, settings) as reporter:
        reporter.stage = "prune"
        Breaking(database, settings, lease, reporter).run()


def test_a_traceback_is_in_the_worker_s_log_and_its_number_in_the_job(
    database: Database, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = rows.add_job(database)
    with caplog.at_level(logging.ERROR):
        run_breaking(database, settings, job_id)
    told = str([event.data for event in rows.read_events(database, job_id)])
    assert "Traceback" not in told
    assert "child.py" not in told
    failure = rows.load(database, job_id).failure
    assert failure is not None
    assert "layer 7" in failure["message"]
    assert "Traceback" in caplog.text
    assert f"error {failure['error_id']}" in caplog.text


def test_a_mistake_of_ours_is_tried_twice(database: Database, settings: Settings) -> None:
    job_id = rows.add_job(database)
    run_breaking(database, settings, job_id)
    rows.let_pass(database, job_id, 3600)
    assert rows.load(database, job_id).state is JobState.QUEUED
    run_breaking(database, settings, job_id)
    job = rows.load(database, job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, 2)
