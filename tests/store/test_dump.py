"""Rows as text, and back: every type of column that a table may have, on both databases."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    insert,
    select,
    text,
)

from publisher.store.database import Database
from publisher.store.dump import read_rows, snapshot, write_rows

THINGS = Table(
    "things",
    MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("large", BigInteger),
    Column("exact", Float),
    Column("yes", Boolean),
    Column("words", Text),
    Column("data", JSON(none_as_null=True)),
    Column("bytes", LargeBinary),
    Column("at", DateTime(timezone=True)),
)
FULL = {
    "large": 2**62 + 1,
    "exact": math.pi * 1e-300,
    "yes": True,
    "words": "zwei\nZeilen \u2028 und 'Gänse' \x7f \U0001f9a2",
    "data": {"b": [1, None, {"a": "é"}], "a": 0.1},
    "bytes": bytes(range(256)),
    "at": datetime(2026, 11, 28, 17, 5, 6, 789, tzinfo=UTC),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows").mkdir()
    return tmp_path / "rows"


@pytest.fixture
def filled(database: Database) -> Database:
    with database.engine.begin() as connection:
        THINGS.metadata.create_all(connection)
        connection.execute(insert(THINGS), [FULL])
        connection.execute(insert(THINGS), [dict.fromkeys(FULL)])
    return database


def test_every_value_comes_back_as_it_was_and_numbers_go_on_after_the_last(filled: Database, folder: Path) -> None:
    with snapshot(filled) as connection:
        counts = write_rows(connection, folder)
        before = connection.execute(select(THINGS).order_by(THINGS.c.id)).all()
    assert counts["things"] == 2
    with filled.engine.begin() as connection:
        connection.execute(THINGS.delete())
        connection.execute(insert(THINGS), [FULL] * 3)
        assert read_rows(connection, folder) == counts
    with filled.engine.begin() as connection:
        assert connection.execute(select(THINGS).order_by(THINGS.c.id)).all() == before
        # no value is a NULL of the database, not JSON's
        nothing = select(func.count()).select_from(THINGS).where(text("data IS NULL"))
        assert connection.scalar(nothing) == 1
        assert connection.scalar(insert(THINGS).values(words="next").returning(THINGS.c.id)) == before[-1].id + 1


def test_a_snapshot_does_not_see_what_is_written_later(filled: Database, folder: Path) -> None:
    with snapshot(filled) as connection:
        assert len(connection.execute(select(THINGS)).all()) == 2
        with filled.engine.begin() as other:
            other.execute(insert(THINGS), [FULL])
        assert write_rows(connection, folder)["things"] == 2


def test_a_value_that_text_has_no_form_for_is_refused(postgresql_url: str, folder: Path) -> None:
    """SQLite has no other types."""
    database = Database(postgresql_url)
    with database.engine.begin() as connection:
        Table("spans", MetaData(), Column("span", Interval)).create(connection)
        connection.execute(text("INSERT INTO spans VALUES ('1 day')"))
    with snapshot(database) as connection, pytest.raises(TypeError, match="timedelta cannot be backed up"):
        write_rows(connection, folder)
    database.close()
