"""A service that cannot start says why in one sentence and ends with status 1, whichever of its processes it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import free_port

_UVICORN = [sys.executable, "-m", "uvicorn", "--port", "0"]
PROCESSES = {
    "api": [*_UVICORN, "publisher.app:app"],
    "hub": [*_UVICORN, "publisher.hub.app:app"],
    "worker": [sys.executable, "-m", "celery", "--quiet", "-A", "worker.celery", "worker", "--pool", "threads"],
    "migrate": [sys.executable, "-m", "publisher.store.migrate"],
    "up": [sys.executable, "-m", "publisher.client.main", "up", "--hub-port", "0"],
}


def said(process: str, tmp_path: Path, **environment: str) -> str:
    """The last line that a process says which ends with status 1; there are no traces of a stack."""
    settings = {"PUBLISHER_DATA_DIR": str(tmp_path / "data"), "PUBLISHER_WORKER_DEVICE": "cpu"} | environment
    command = PROCESSES[process] + (["--port", str(free_port())] if process == "up" else [])
    done = subprocess.run(
        command,
        env={name: value for name, value in os.environ.items() if not name.startswith("PUBLISHER_")} | settings,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    *before, last = done.stderr.strip().splitlines()  # Celery warns of root first
    assert last.startswith("Error: "), done.stderr
    assert not any(line.startswith("Error: ") for line in before)
    return last


@pytest.mark.parametrize("process", ["api", "hub", "worker", "up"])
@pytest.mark.parametrize("place", ["a file is in its place", "nothing can be written there"])
def test_data_folder_that_cannot_be_used_is_named(tmp_path: Path, process: str, place: str) -> None:
    if place == "a file is in its place":
        (tmp_path / "file").touch()
        folder = tmp_path / "file" / "data"
    else:
        folder = Path("/proc/self/task")  # there is no file to be made, whoever asks
    assert str(folder) in said(process, tmp_path, PUBLISHER_DATA_DIR=str(folder))


@pytest.mark.parametrize("process", PROCESSES)
def test_database_that_does_not_answer_is_named_without_its_password(tmp_path: Path, process: str) -> None:
    port = free_port()
    url = f"postgresql://loram:secret@127.0.0.1:{port}/loram"
    line = said(process, tmp_path, PUBLISHER_DATABASE_URL=url)
    assert f"127.0.0.1:{port}" in line
    assert "secret" not in line


@pytest.mark.parametrize("process", ["api", "worker"])
def test_secret_file_that_is_not_there_is_named(tmp_path: Path, process: str) -> None:
    missing = tmp_path / "missing"
    assert str(missing) in said(process, tmp_path, PUBLISHER_SECRET_FILE=str(missing))


@pytest.mark.parametrize("process", ["api", "worker"])
def test_signing_secret_that_cannot_be_read_is_named(tmp_path: Path, process: str) -> None:
    (tmp_path / "data" / "secret").mkdir(parents=True)
    assert str(tmp_path / "data" / "secret") in said(process, tmp_path)


@pytest.mark.parametrize("process", ["api", "migrate"])
def test_database_that_is_something_else_is_named(tmp_path: Path, process: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "publisher.db").write_bytes(b"no database at all" * 1000)
    assert "damaged" in said(process, tmp_path)


@pytest.mark.parametrize("process", ["api", "hub"])
def test_migrations_that_are_made_apart_are_asked_for_in_a_sentence(tmp_path: Path, process: str) -> None:
    """Though the server runs already: it logs its own lines around it, and the status is its own."""
    settings = {"PUBLISHER_DATA_DIR": str(tmp_path / "data"), "PUBLISHER_MIGRATE_AT_START": "false"}
    done = subprocess.run(
        PROCESSES[process],
        env=os.environ | settings,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "Error: The database lacks" in done.stderr
    assert "Run `publisher admin migrate`" in done.stderr
