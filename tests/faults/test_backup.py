"""A backup that is taken while jobs run, restored elsewhere: its service finishes them all, and all of its publications
are whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from huggingface_hub import snapshot_download

from publisher.client.verify import verification_of
from publisher.store.states import JobState
from tests import servers
from tests.faults.installation import KEY, Installation

#: two installations at once; a minute on two cores that are free
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

SECONDS_LONG = 2_000  # tokens: 31 steps


def admin(installation: Installation, *arguments: object) -> str:
    command = [sys.executable, "-m", "publisher.client.main", "admin", *map(str, arguments)]
    done = subprocess.run(
        command, env=installation.environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def database_beside(installation: Installation, folder: Path) -> str:
    """An empty one of the same kind."""
    url = installation.settings.database_url
    if url.startswith("sqlite"):
        return f"sqlite:///{folder / 'publisher.db'}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE restored")
    return url.replace("/faults", "/restored")


def test_a_backup_taken_while_jobs_run_gives_a_service_that_finishes_them(
    installation: Installation, tmp_path: Path
) -> None:
    published = installation.make_variant("default/published", tokens=64)
    installation.start_worker()
    installation.wait_for_state(published, JobState.SUCCEEDED)
    jobs = [published, installation.make_variant("default/running", tokens=SECONDS_LONG)]
    jobs.append(installation.make_variant("default/queued", tokens=128))
    installation.wait_until_aligning(jobs[1])
    admin(installation, "backup", tmp_path / "backups", "--with-secret")
    with servers.redis_server(tmp_path) as redis:
        broker = redis if installation.settings.broker_url.startswith("redis") else "filesystem://"
        (tmp_path / "elsewhere").mkdir()
        roots = f'["{installation.folder}"]'
        restored = Installation.create(
            tmp_path / "elsewhere", database_beside(installation, tmp_path), broker, {"LOCAL_ROOTS": roots}
        )
        try:
            admin(restored, "restore", tmp_path / "backups")
            restored.start_api()
            assert restored.job(jobs[1]).state is JobState.QUEUED
            restored.start_worker("other")
            for job_id in jobs:
                job = restored.wait_for_state(job_id, JobState.SUCCEEDED)
                assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
            for name in ("published", "running", "queued"):
                assert published_problems(restored, f"default/{name}", tmp_path / name) == []
                # one that was published between the database's moment and the copy of its files publishes once more
                assert restored.publications(f"default/{name}") in ({1, 2} if name == "running" else {1})
        finally:
            restored.stop()
    # and where it was taken all went on
    assert installation.wait_for_state(jobs[2], JobState.SUCCEEDED).state is JobState.SUCCEEDED


def published_problems(installation: Installation, repo_id: str, folder: Path) -> list[str]:
    """What `publisher verify` says of a repository."""
    snapshot_download(repo_id, endpoint=f"{installation.url}/hub", token=KEY, local_dir=folder)
    return list(verification_of(folder).problems)
