"""Who looks for planted secrets finds them: in every place that is looked into, in every form."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
import redis

from publisher.store import keys
from publisher.store.database import Database
from tests.faults.planted import Sightings

SECRET = 'p@ss/"word"-planted'


@pytest.fixture
def found() -> Sightings:
    return Sightings({"password": SECRET})


@pytest.mark.parametrize(
    "text",
    [
        f"Bearer {SECRET}",
        f"redis://:{quote(SECRET, safe='')}@broker/0",
        json.dumps({"message": f"cannot use {SECRET}"}),
        *(base64.b64encode(f"{user}:{SECRET}".encode()).decode() for user in ("", "u", "us", "user")),
    ],
)
def test_every_form_is_seen(found: Sightings, text: str) -> None:
    found.look("log", text)
    found.look("another", "nothing of it")
    assert found.seen == {"password": {"log"}}


def test_files_are_looked_into(found: Sightings, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "model.bin").write_bytes(b"\x00\xff" + SECRET.encode())
    (tmp_path / "other").touch()
    assert found.look_into_files(tmp_path) == 2
    assert found.seen == {"password": {"deep/model.bin"}}


def test_tables_are_looked_into(found: Sightings, database: Database) -> None:
    with database.write() as session:
        keys.add_key(session, keys.add_tenant(session, "org").id, f"a key named {SECRET}", "loram_x")
    assert found.look_into_database(database) >= 2
    assert found.seen == {"password": {"table api_keys", "table audit_log"}}


def test_messages_are_looked_into(found: Sightings, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.lpush("queue", json.dumps({"args": [SECRET]}))
        client.hset("unacked", "1", SECRET)
        client.sadd("bound", "harmless")
        assert found.look_into_redis(client) == 3
    assert found.seen == {"password": {"redis value of b'queue'", "redis value of b'unacked'"}}


def test_command_lines_are_looked_at(found: Sightings) -> None:
    code = "print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, SECRET], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # before it runs its own command line need not be there
        assert found.look_at_processes([psutil.Process(process.pid)]) == 1
        process.communicate(b"\n")
    assert found.seen == {"password": {"command line"}}
