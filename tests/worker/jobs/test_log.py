"""What a job's process writes says of every line which job it is about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from publisher.jobs.leases import Lease
from publisher.settings import Settings
from publisher.store import migrate
from publisher.store.database import Database
from tests.jobs.rows import add_job, claim, load
from worker.jobs.child import LEFT_OPEN


def test_lines_of_a_jobs_process_name_job_variant_tenant_attempt_and_worker(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    migrate.upgrade(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    job = load(database, add_job(database))
    lease = claim(database, job.id, worker="celery@here")
    line = stopped_child(tmp_path, Lease(job.id, lease.token + 1))
    database.close()
    about = {"job": job.id, "variant": job.variant_id, "tenant": job.tenant_id, "attempt": 1, "worker": "celery@here"}
    assert about.items() <= line.items()
    assert (line["service"], line["level"]) == ("job", "warning")


def stopped_child(data: Path, lease: Lease) -> dict[str, object]:
    """The last line of a process whose lease is not the current one."""
    command = [sys.executable, "-m", "worker.jobs.child", lease.job_id, str(lease.token), str(os.getpid())]
    environment = os.environ | {"PUBLISHER_DATA_DIR": str(data)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == LEFT_OPEN, done.stderr
    return dict(json.loads(done.stderr.splitlines()[-1]))
