"""Transactions: what is written together is seen together, writers wait for each other, clocks agree."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError

from publisher.store.database import Database, database_now
from publisher.store.models import Job, Tenant, Worker


def test_database_clock_counts_seconds_since_1970_with_fractions(database: Database) -> None:
    with database.read() as session:
        before = time.time()
        first, second = (session.scalar(select(database_now())) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first == pytest.approx(before, abs=2)
    assert first <= second
    assert first % 1 or second % 1


def test_error_rolls_everything_back(database: Database) -> None:
    def write_two_of_one_name() -> None:
        with database.write() as session:
            session.add(Tenant(name="one"))
            session.flush()
            session.add(Tenant(name="one"))

    with pytest.raises(IntegrityError):
        write_two_of_one_name()
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Tenant)) == 0


def test_reference_to_nothing_is_refused(database: Database) -> None:
    def write_orphan() -> None:
        with database.write() as session:
            session.add(Job(tenant_id="ten_none", variant_id="var_none"))

    with pytest.raises(IntegrityError):
        write_orphan()


def test_many_writers_lose_no_update(database: Database) -> None:
    with database.write() as session:
        speeds = {"flops_per_second": 0.0, "fp32_flops_per_second": 0.0}
        session.add(Worker(id="w", device="cpu", **speeds, memory_bytes=0, seen_at=0.0))

    def add_one(_: int) -> None:
        with database.write() as session:
            session.execute(update(Worker).values(memory_bytes=Worker.memory_bytes + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_one, range(200)))
    with database.read() as session:
        assert session.get_one(Worker, "w").memory_bytes == 200


def test_reader_does_not_wait_for_a_writer(database: Database) -> None:
    with database.write() as writing:
        writing.add(Tenant(name="unseen"))
        writing.flush()
        with database.read() as reading:
            assert reading.scalar(select(func.count()).select_from(Tenant)) == 0


@pytest.fixture
def remote(postgresql_url: str) -> Iterator[Database]:
    database = Database(postgresql_url)
    yield database
    database.close()


def backend(database: Database) -> int:
    """The process of the server that a transaction talks to."""
    with database.read() as session:
        return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_connection_that_died_while_it_lay_idle_is_replaced_unnoticed(
    remote: Database, postgresql_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.store.database.IDLE_SECONDS", 0.0)
    before = backend(remote)
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 10000)", [before])
    assert backend(remote) != before


def test_connection_is_tried_only_when_it_lay_idle(remote: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    monkeypatch.setattr(remote.engine.dialect, "do_ping", tried.append)
    before = backend(remote)
    assert backend(remote) == before
    assert not tried
    monkeypatch.setattr("publisher.store.database.IDLE_SECONDS", 0.0)
    assert backend(remote) == before
    assert len(tried) == 1
