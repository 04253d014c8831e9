"""The worker of job_throughput: the product's Celery application and its real task, and two tasks written by hand."""

from __future__ import annotations

import json
import os
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from celery.signals import task_postrun, task_prerun

import worker.jobs.supervision as supervision
from publisher.jobs import transitions
from publisher.jobs.leases import Lease
from publisher.jobs.transitions import PublishedFile
from publisher.recipe.stages import Stage
from publisher.settings import settings
from worker.celery import app
from worker.jobs.reporter import JobReporter
from worker.tasks import database

EMPTY, SAME_ROWS = "tests.empty", "tests.same_rows"
#: what the benchmark says to this process
RESULT, EXPECTED, PROCESS = "JOB_THROUGHPUT_RESULT", "JOB_THROUGHPUT_JOBS", "JOB_THROUGHPUT_PROCESS"
_PUBLICATION = {"endpoint": "none", "repo_id": "none/none", "commit": "0" * 40, "url": "none"}
_STAGE_EVENTS = [{"stage": stage.value, "state": state} for stage in Stage for state in ("started", "finished")]


def start_process() -> subprocess.Popen[bytes]:
    """What every side starts for every job."""
    return subprocess.Popen(json.loads(os.environ[PROCESS]), stdin=subprocess.DEVNULL, start_new_session=True)


@app.task(name=EMPTY)  # type: ignore[untyped-decorator]  # Celery has no types
def empty(job_id: str) -> None:
    """Nothing but the process."""
    start_process().wait()


@app.task(name=SAME_ROWS)  # type: ignore[untyped-decorator]
def same_rows(job_id: str) -> None:
    """The rows that a job leaves, in three transactions by hand: taken, what it told with its lease renewed, ended.

    No ORM, no other worker or cancel thought of, no fencing token, no way back from a failure.
    """
    connection = _connection()
    with connection.transaction():
        taken = connection.execute(_CLAIM, [job_id]).fetchone()
        assert taken is not None
        seq, variant_id = taken
        _tell(connection, job_id, seq, [("state", {"state": "running", "attempt": 1})])
    with connection.transaction():
        connection.execute(_RENEW, [len(_STAGE_EVENTS), json.dumps(_STAGE_EVENTS), job_id])
        _tell(connection, job_id, seq + 1, [("stage", data) for data in _STAGE_EVENTS])
    start_process().wait()
    with connection.transaction():
        connection.execute(_SUCCEED, [job_id])
        _tell(connection, job_id, seq + len(_STAGE_EVENTS) + 1, [("state", {"state": "succeeded", "attempt": 1})])
        connection.execute(_PUBLISH, [json.dumps(_PUBLICATION), variant_id])
        connection.execute(_FILE, [variant_id, "0" * 64])


_CLAIM = """UPDATE jobs SET state = 'running', event_seq = event_seq + 1, attempt = attempt + 1, worker = 'bare',
    lease_token = lease_token + 1, lease_expires_at = extract(epoch FROM clock_timestamp()) + 30,
    started_at = extract(epoch FROM clock_timestamp()) WHERE id = %s AND state = 'queued'
    RETURNING event_seq, variant_id"""
_RENEW = """UPDATE jobs SET lease_expires_at = extract(epoch FROM clock_timestamp()) + 30, event_seq = event_seq + %s,
    stages = %s WHERE id = %s"""
_SUCCEED = """UPDATE jobs SET state = 'succeeded', event_seq = event_seq + 1, lease_expires_at = NULL,
    finished_at = extract(epoch FROM clock_timestamp()) WHERE id = %s"""
_PUBLISH = "UPDATE variants SET publication = %s, manifest = '{}' WHERE id = %s"
_FILE = "INSERT INTO variant_files (variant_id, path, size, sha256) VALUES (%s, 'model.safetensors', 1, %s)"
_EVENT = "INSERT INTO job_events (job_id, seq, kind, at, data) VALUES (%s, %s, %s, %s, %s)"


@cache
def _connection() -> psycopg.Connection[Any]:
    return psycopg.connect(settings().resolved_database_url, autocommit=True)


def _tell(connection: psycopg.Connection[Any], job_id: str, first: int, told: list[tuple[str, dict[str, Any]]]) -> None:
    rows = [(job_id, seq, kind, time.time(), json.dumps(data)) for seq, (kind, data) in enumerate(told, first)]
    with connection.cursor() as cursor:
        cursor.executemany(_EVENT, rows)


def trivial_job(lease: Lease) -> subprocess.Popen[bytes]:
    """In the place of `python -m worker.jobs.child`, whose start alone takes seconds: every stage starts and finishes,
    and the job succeeds, all under the lease as ever."""
    with JobReporter(database(), lease, settings()) as reporter:
        for stage in Stage:
            reporter.on_stage(stage, "started", None)
            reporter.on_stage(stage, "finished", None)
        files = [PublishedFile("model.safetensors", 1, "0" * 64)]
        reporter.finish(lambda session: transitions.succeed(session, lease, _PUBLICATION, {}, files))
    return start_process()


class _Clock:
    """From the start of the first task to the end of the last."""

    started = 0.0
    cpu = 0.0
    done = 0

    def start(self, **_: object) -> None:
        if not self.started:
            self.started, self.cpu = time.perf_counter(), _cpu_seconds()

    def stop(self, **_: object) -> None:
        self.done += 1
        if self.done == int(os.environ[EXPECTED]):
            seconds = time.perf_counter() - self.started
            whole = Path(f"{os.environ[RESULT]}.written")
            whole.write_text(json.dumps({"seconds": seconds, "cpu": _cpu_seconds() - self.cpu}))
            whole.rename(os.environ[RESULT])


def _cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


_clock = _Clock()
supervision.start_child = trivial_job
task_prerun.connect(_clock.start)
task_postrun.connect(_clock.stop)
