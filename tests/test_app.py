"""Starting the API process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from publisher.settings import Settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.keys import ensure_first_key, tenant_of
from tests.servers import free_port, wait_until

HEAVY = "[name for name in ('torch', 'transformers') if name in sys.modules]"


def test_the_api_process_loads_no_torch(tmp_path: Path) -> None:
    code = f"import sys, publisher.app; publisher.app.app; print({HEAVY})"
    environment = os.environ | {"PUBLISHER_DATA_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def start(data: Path, log: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "uvicorn", "publisher.app:app", "--port", str(port)]
    with log.open("ab") as output:
        return subprocess.Popen(
            command, env=os.environ | {"PUBLISHER_DATA_DIR": str(data)}, stdout=output, stderr=output
        )


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    except httpx.TransportError:
        return False


def test_the_first_start_prints_a_key_that_works_and_the_second_none(tmp_path: Path) -> None:
    port = free_port()
    url, logs = f"http://127.0.0.1:{port}", [tmp_path / "first.log", tmp_path / "second.log"]
    for log in logs:
        process = start(tmp_path / "data", log, port)
        try:
            wait_until(lambda: answers(url), "start of the API")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    (key,) = re.findall(r"loram_\S+", logs[0].read_text())
    assert "loram_" not in logs[1].read_text()
    assert key not in (tmp_path / "data" / "publisher.db").read_bytes().decode("latin-1")
    database = Database(Settings(data_dir=tmp_path / "data").resolved_database_url)
    with database.read() as session:
        tenant = tenant_of(session, key)
    database.close()
    assert tenant is not None
    assert tenant.name == "default"


@pytest.fixture
def empty(sqlite_url: str) -> Database:
    migrate.upgrade(sqlite_url)
    return Database(sqlite_url)


def test_a_chosen_key_exists_after_every_start(empty: Database) -> None:
    assert ensure_first_key(empty, "loram_chosen") is None
    assert ensure_first_key(empty, "loram_chosen") is None
    assert ensure_first_key(empty, "loram_another") is None
    with empty.read() as session:
        first, second = tenant_of(session, "loram_chosen"), tenant_of(session, "loram_another")
    assert first is not None
    assert first == second


def test_the_first_key_is_made_once(empty: Database) -> None:
    assert ensure_first_key(empty) is not None
    assert ensure_first_key(empty) is None
