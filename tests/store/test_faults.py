"""What is wrong with a database is told in its own words: a full disk is one, a server that is away another."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from publisher.errors import InfrastructureFault, OutOfDisk
from publisher.store.database import create_database_engine
from publisher.store.faults import database_faults
from tests.servers import free_port


def fault(engine: Engine, *statements: str) -> InfrastructureFault:
    """What is told of the first of the statements that fails."""
    with pytest.raises(InfrastructureFault) as found:
        run(engine, *statements)
    return found.value


def run(engine: Engine, *statements: str) -> None:
    try:
        with database_faults(engine.url), engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        engine.dispose()


def test_a_full_disk_under_sqlite_is_named_with_its_folder(tmp_path: Path) -> None:
    engine = create_database_engine(f"sqlite:///{tmp_path / 'publisher.db'}")
    # SQLite says of its own limit what it says of the disk
    limit = "PRAGMA max_page_count = 8"
    said = fault(engine, "CREATE TABLE t (x)", limit, "INSERT INTO t VALUES (zeroblob(100000))")
    assert isinstance(said, OutOfDisk)
    assert said.status == 507
    assert f"The disk under {tmp_path} is full" in str(said)


def test_other_faults_of_sqlites_file_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "publisher.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (x)"))
    engine.dispose()
    read_only = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert "may only be read" in str(fault(read_only, "INSERT INTO t VALUES (1)"))
    assert "cannot be opened" in str(fault(create_engine(f"sqlite:///{tmp_path}/away/x.db"), "SELECT 1"))
    path.write_bytes(b"something else " * 1000)
    assert "is damaged" in str(fault(create_engine(f"sqlite:///{path}"), "SELECT * FROM t"))


def test_a_busy_sqlite_is_busy_and_not_away(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'publisher.db'}"
    holder, other = create_database_engine(url), create_engine(url, connect_args={"timeout": 0})
    with holder.execution_options(sqlite_begin="BEGIN IMMEDIATE").begin():
        assert "busy with other writers" in str(fault(other, "CREATE TABLE t (x)"))
    holder.dispose()


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("53100", 507, "The disk of the database server"),
        ("53300", 503, "no connection left"),
        ("25006", 503, "may only be read"),
        ("58030", 503, "cannot read or write its disk"),
        ("57P03", 503, "does not answer"),
    ],
)
def test_postgresqls_faults_are_told_by_their_code(postgresql_url: str, code: str, status: int, said: str) -> None:
    raising = f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$"
    found = fault(create_database_engine(postgresql_url), raising)
    assert found.status == status
    assert said in str(found)


def test_a_server_that_is_away_does_not_answer() -> None:
    engine = create_database_engine(f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    assert "The database does not answer" in str(fault(engine, "SELECT 1"))


def test_errors_of_our_own_stay_what_they_are(tmp_path: Path) -> None:
    engine = create_database_engine(f"sqlite:///{tmp_path / 'publisher.db'}")
    with pytest.raises(IntegrityError):
        run(engine, "CREATE TABLE t (x NOT NULL)", "INSERT INTO t VALUES (NULL)")
