"""`publisher admin audit`: what an operator reads and prunes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from publisher.store import audit, migrate
from publisher.store.database import Database
from publisher.store.models import Tenant
from tests.client.test_commands import publisher


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Of an installation that the command's settings name, with a row of two tenants."""
    for name in [name for name in os.environ if name.startswith("PUBLISHER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PUBLISHER_DATA_DIR", str(tmp_path))
    url = f"sqlite:///{tmp_path / 'publisher.db'}"
    migrate.upgrade(url)
    database = Database(url)
    for tenant, action in (("one", "job.cancel"), ("two", "key.create")):
        with database.write() as session:
            session.add(Tenant(id=f"id of {tenant}", name=tenant))
            audit.record(session, action, f"{action}-1", tenant_id=f"id of {tenant}", words="Gewürz")
    return database


def test_the_log_is_json_lines_oldest_first_and_can_be_narrowed_down(log: Database) -> None:
    lines = [json.loads(line) for line in publisher("admin", "audit").stdout.splitlines()]
    assert [line["action"] for line in lines] == ["job.cancel", "key.create"]
    assert lines[0].keys() >= {"at", "actor", "tenant_id", "resource", "request_id", "address", "details"}
    assert lines[0]["details"] == {"words": "Gewürz"}
    for whose in ("two", "id of two"):
        narrow = publisher("admin", "audit", "--tenant", whose, "--action", "key", "--after", "2026-01-01").stdout
        assert [json.loads(line)["resource"] for line in narrow.splitlines()] == ["key.create-1"]
    unknown = publisher("admin", "audit", "--tenant", "three")
    assert unknown.returncode == 5
    assert "there is no tenant 'three'" in unknown.stderr


def test_what_is_older_is_pruned_and_the_log_says_so(log: Database) -> None:
    assert publisher("admin", "audit", "prune", "--before", "yesterday").returncode == 2
    done = publisher("admin", "audit", "prune", "--before", str(time.time() + 1))
    assert done.stdout == "Deleted 2 entries.\n", done.stderr
    (line,) = publisher("admin", "audit").stdout.splitlines()
    assert json.loads(line)["action"] == "audit.prune"
