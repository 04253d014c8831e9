"""From the version before to this one, machine by machine, while jobs run: nothing is lost, nothing published twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from publisher.store.states import JobState
from tests import servers
from tests.docs.blocks import ROOT
from tests.faults.installation import Installation
from tests.jobs import rows

#: eight processes, four of them workers; tests/store/test_rolling_upgrade.py holds what a migration may do without any
pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

#: of the version before, in this repository's history
BEFORE = "774b6cb"
SECONDS_LONG = 2_000


@pytest.fixture
def machines(tmp_path: Path, postgresql_server: str) -> Iterator[tuple[Installation, Installation]]:
    """Two, over one PostgreSQL, Redis, secret and Hub folder; nothing runs."""
    with psycopg.connect(postgresql_server, autocommit=True) as connection, servers.redis_server(tmp_path) as broker:
        connection.execute("CREATE DATABASE rolling")
        url = postgresql_server.replace("/postgres", "/rolling")
        both = [machine(tmp_path, name, url, broker) for name in ("old", "new")]
        try:
            yield both[0], both[1]
        finally:
            for each in both:
                each.stop()
            connection.execute("DROP DATABASE rolling WITH (FORCE)")


def machine(folder: Path, name: str, url: str, broker: str) -> Installation:
    own = folder / name
    (own / "data").mkdir(parents=True)
    (folder / "shared-hub").mkdir(exist_ok=True)
    (own / "data" / "hub").symlink_to(folder / "shared-hub")
    # patient: nobody is killed here, and the machine that tests run on may be slow
    shared = {"SECRET": "the same everywhere", "LOCAL_ROOTS": f'["{folder}"]', "LEASE_SECONDS": 60, "MAX_ATTEMPTS": 20}
    return Installation.create(own, url, broker, shared)


def code_of(commit: str, folder: Path) -> Path:
    folder.mkdir()
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=False)
    assert archive.returncode == 0, f"{archive.stderr.decode()} (a shallow clone has no history: git fetch --unshallow)"
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def start(code: Path, installation: Installation, name: str, *module: str) -> psutil.Popen:
    environment = installation.environment | {"PYTHONPATH": str(code)}
    with (installation.folder / f"{name}.log").open("ab") as log:
        process = psutil.Popen([sys.executable, "-m", *module], env=environment, cwd=code, stdout=log, stderr=log)
    installation.processes.append(process)
    return process


def start_api(code: Path, installation: Installation) -> psutil.Popen:
    host, port = installation.url.removeprefix("http://").split(":")
    process = start(code, installation, "api", "uvicorn", "publisher.app:app", "--host", host, "--port", port)
    servers.wait_until(lambda: installation.is_ready() or not process.is_running(), "start of the API", 240)
    assert process.is_running(), installation.log("api")
    return process


def start_worker(code: Path, installation: Installation, name: str) -> psutil.Popen:
    celery = ["celery", "-A", "worker.celery", "worker", "-n", name, "--loglevel", "INFO"]
    process = start(code, installation, name, *celery, "--pool", "threads", "--concurrency", "1")
    servers.wait_until(lambda: installation.was_seen(name, process), f"registration of {name}", 240)
    return process


def test_machines_are_upgraded_one_by_one_while_jobs_run(
    machines: tuple[Installation, Installation], tmp_path: Path
) -> None:
    old, new = machines
    before, now = code_of(BEFORE, tmp_path / "before"), ROOT
    jobs: dict[str, str] = {}

    def ask(via: Installation, name: str, tokens: int) -> None:
        jobs[name] = via.make_variant(f"default/{name}", tokens=tokens)

    old_api = start_api(before, old)
    old_worker = start_worker(before, old, "old-worker")
    old.register()
    new.base_model_id = old.base_model_id
    ask(old, "long-before", SECONDS_LONG)
    ask(old, "before", 64)
    old.wait_until_aligning(jobs["long-before"])
    # the new API migrates under the old one's feet, which goes on answering and making jobs
    start_api(now, new)
    ask(old, "old-api-on-new-tables", 64)
    ask(new, "new-api", 64)
    # old and new worker beside each other; the old one is then stopped as a deploy stops it
    start_worker(now, new, "new-worker")
    ask(old, "both-workers", SECONDS_LONG)
    new.wait_for_state(jobs["before"], JobState.SUCCEEDED, 300)
    old_worker.send_signal(signal.SIGTERM)
    old_worker.wait(120)
    old_api.send_signal(signal.SIGTERM)
    old_api.wait(60)
    ask(new, "after", 64)
    for name, job_id in jobs.items():
        job = new.wait_for_state(job_id, JobState.SUCCEEDED, 300)
        assert (job.state, job.failure) == (JobState.SUCCEEDED, None), name
        assert new.publications(f"default/{name}") == 1, name
        numbers = [event.seq for event in rows.read_events(new.database, job_id)]
        assert numbers == list(range(1, len(numbers) + 1)), name
