"""What a process notes of keys: their last use, once a minute, and digests under the current secret."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from sqlalchemy import event, update
from sqlalchemy.exc import OperationalError

from publisher.keys.digests import secret_id
from publisher.store import doorkeeper as module
from publisher.store import keys
from publisher.store.database import Database
from publisher.store.doorkeeper import Doorkeeper
from publisher.store.models import ApiKey
from tests.store.rows import Owner, add_owner

KEY = "loram_key-of-mine"
OLD, NEW = b"o" * 32, b"n" * 32


@pytest.fixture
def owner(database: Database) -> Owner:
    with database.write() as session:
        return add_owner(session, "mine")


def row(database: Database, owner: Owner) -> ApiKey:
    with database.read() as session:
        return session.get_one(ApiKey, owner.key)


def use(database: Database, *secrets: bytes, settled: float = 0.0) -> Doorkeeper:
    """A process in which the key is used once."""
    doorkeeper = Doorkeeper(database, secrets, settled=settled)
    with database.read() as session:
        assert doorkeeper.find(session, KEY) is not None
    return doorkeeper


def test_a_key_of_before_works_and_is_kept_under_the_secret_at_its_next_use(database: Database, owner: Owner) -> None:
    assert row(database, owner).secret_id is None
    use(database, OLD).write()
    assert row(database, owner).secret_id == secret_id(OLD)
    use(database, OLD)
    with database.read() as session:
        assert keys.key_and_tenant(session, KEY) is None, "the bare sha256 opens nothing any more"


def test_a_key_under_an_older_secret_works_and_moves_to_the_current_one(database: Database, owner: Owner) -> None:
    use(database, OLD).write()
    use(database, NEW, OLD).write()
    assert row(database, owner).secret_id == secret_id(NEW)
    use(database, NEW)


def test_a_key_under_a_secret_that_counts_no_more_opens_nothing(database: Database, owner: Owner) -> None:
    use(database, OLD).write()
    with database.read() as session:
        assert Doorkeeper(database, [NEW]).find(session, KEY) is None


def test_while_a_service_is_upgraded_the_version_before_still_knows_its_keys(database: Database, owner: Owner) -> None:
    use(database, OLD, settled=3600.0).write()
    assert row(database, owner).secret_id is None
    with database.read() as session:
        assert keys.key_and_tenant(session, KEY) is not None


def test_the_last_use_is_noted_and_once_a_minute_at_most(
    database: Database, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    assert row(database, owner).last_used_at is None
    doorkeeper = use(database)
    doorkeeper.write()
    first = row(database, owner).last_used_at
    assert first is not None
    for later, noted in ((1001.0, False), (1061.0, True)):
        now[0] = later
        with database.write() as session:
            session.execute(update(ApiKey).values(last_used_at=first - 61))
        with database.read() as session:
            doorkeeper.find(session, KEY)
        doorkeeper.write()
        last = row(database, owner).last_used_at
        assert last is not None
        assert (last > first - 30) == noted


def test_of_several_processes_one_writes(database: Database, owner: Owner) -> None:
    use(database).write()
    first = row(database, owner).last_used_at
    use(database).write()
    assert row(database, owner).last_used_at == first


@pytest.fixture
def broken(database: Database) -> Iterator[list[bool]]:
    """While it holds something, no statement reaches the database."""
    holds: list[bool] = []

    def refuse(*arguments: object) -> None:
        if holds:
            raise OperationalError("UPDATE", {}, Exception("away"))

    event.listen(database.engine, "before_cursor_execute", refuse)
    yield holds
    event.remove(database.engine, "before_cursor_execute", refuse)


def test_what_the_database_did_not_take_is_written_later(database: Database, owner: Owner, broken: list[bool]) -> None:
    doorkeeper = use(database, OLD)
    broken.append(True)
    doorkeeper.write()
    broken.clear()
    assert row(database, owner).last_used_at is None
    doorkeeper.write()
    assert row(database, owner).last_used_at is not None
    assert row(database, owner).secret_id == secret_id(OLD)


def test_what_was_noted_is_written_at_the_end(database: Database, owner: Owner) -> None:
    doorkeeper = use(database)
    doorkeeper.start()
    doorkeeper.stop()
    assert row(database, owner).last_used_at is not None
