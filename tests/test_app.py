"""Starting the API process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi

from publisher.keys.digests import KeyDigests
from publisher.settings import Settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.keys import ensure_first_key, key_and_tenant
from tests.servers import free_port, wait_until

HEAVY = "[name for name in ('torch', 'transformers') if name in sys.modules]"


def test_the_api_process_loads_no_torch(tmp_path: Path) -> None:
    code = f"import sys, publisher.app; publisher.app.app; print({HEAVY})"
    environment = os.environ | {"PUBLISHER_DATA_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def start(data: Path, log: Path, port: int, umask: int = -1) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "uvicorn", "publisher.app:app", "--port", str(port)]
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=os.environ | {"PUBLISHER_DATA_DIR": str(data), "HF_HUB_DISABLE_XET": "1"},
            stdout=output,
            stderr=output,
            umask=umask,
        )


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    except httpx.TransportError:
        return False


def test_the_first_start_leaves_a_key_that_works_in_a_file_and_nowhere_else(tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / "data" / "first-api-key"
    url, logs = f"http://127.0.0.1:{port}", [tmp_path / "first.log", tmp_path / "second.log"]
    for log in logs:
        process = start(tmp_path / "data", log, port)
        try:
            wait_until(lambda: answers(url), "start of the API")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
        if log is logs[0]:
            key = file.read_text().strip()
            assert file.stat().st_mode & 0o777 == 0o600
            file.unlink()
    assert f"Your API key is in {file}" in logs[0].read_text()
    assert not file.exists(), "the second start makes none"
    assert key[:10] not in logs[0].read_text() + logs[1].read_text()
    assert key not in (tmp_path / "data" / "publisher.db").read_bytes().decode("latin-1")
    settings = Settings(data_dir=tmp_path / "data")
    database = Database(settings.resolved_database_url)
    with database.read() as session:
        found = key_and_tenant(session, key, KeyDigests([settings.secret_bytes()]))
    database.close()
    assert found is not None
    assert found[1].name == "default"


def open_to_others(folder: Path) -> list[str]:
    """What anybody but the owner may read, write or list."""
    found = [folder, *folder.rglob("*")]
    modes = {path: path.lstat().st_mode for path in found if not path.is_symlink()}
    return [f"{path} {mode:o}" for path, mode in modes.items() if mode & 0o077]


def test_everything_that_is_kept_is_the_owner_s_alone_whatever_the_umask(tmp_path: Path) -> None:
    """Also what an earlier version left open; what the owner put there is the owner's business."""
    data, port = tmp_path / "data", free_port()
    (data / "hub" / "blobs" / "ab").mkdir(parents=True)
    (data / "hub" / "blobs" / "ab" / "old").touch(mode=0o644)
    (data / "models").mkdir()
    (data / "models" / "mine").touch(mode=0o644)
    process = start(data, tmp_path / "log", port, umask=0)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}"), "start of the API")
        key = (data / "first-api-key").read_text().strip()
        api = HfApi(endpoint=f"http://127.0.0.1:{port}/hub", token=key)
        repo = api.create_repo(f"{api.whoami()['name']}/small")
        api.upload_file(path_or_fileobj=b"weights" * 100, path_in_repo="w.safetensors", repo_id=repo.repo_id)
        listed = {path.name for path in data.iterdir()}
        assert {"publisher.db", "publisher.db-wal", "publisher.db-shm", "hub", "secret", "broker"} <= listed
        shown = [path for path in open_to_others(data) if "/models" not in path]
        assert shown == []
        assert (data / "models" / "mine").stat().st_mode & 0o777 == 0o644
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


@pytest.fixture
def empty(sqlite_url: str) -> Database:
    migrate.upgrade(sqlite_url)
    return Database(sqlite_url)


def test_a_chosen_key_exists_after_every_start(empty: Database) -> None:
    assert ensure_first_key(empty, "loram_chosen") is None
    assert ensure_first_key(empty, "loram_chosen") is None
    assert ensure_first_key(empty, "loram_another") is None
    with empty.read() as session:
        first, second = (key_and_tenant(session, key) for key in ("loram_chosen", "loram_another"))
    assert first is not None
    assert second is not None
    assert first[1] is second[1]


def test_the_first_key_is_made_once(empty: Database) -> None:
    assert ensure_first_key(empty) is not None
    assert ensure_first_key(empty) is None
