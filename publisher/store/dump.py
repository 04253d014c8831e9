"""All rows of a database as text, and back: the same for SQLite and PostgreSQL, whatever tables a version has.

A table is one gzipped file of JSON lines: the names of its columns, then a list of values for each row. Tables are read
from the database and not from the models, so that nothing is left out that a newer or older version knows.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Column, Connection, DateTime, Integer, LargeBinary, MetaData, Table, func, insert, select
from sqlalchemy import text as sql

from publisher.errors import InfrastructureFault
from publisher.store.database import Database

_REVISIONS = "alembic_version"
_SUFFIX = ".jsonl.gz"
_BATCH = 1000


@contextmanager
def snapshot(database: Database) -> Iterator[Connection]:
    """A connection that sees the database as it is at its first statement, however long others go on writing."""
    options = {} if database.engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
    with database.engine.connect().execution_options(**options) as connection:
        yield connection


def write_rows(connection: Connection, folder: Path) -> dict[str, int]:
    """Every table but that of migrations, as a file in `folder`; returns how many rows each has."""
    return {table.name: _write_table(connection, table, folder) for table in _tables(connection)}


def read_rows(connection: Connection, folder: Path) -> dict[str, int]:
    """Put back what `write_rows` wrote, in place of all rows that there are; the tables have to be those of then.

    Returns how many rows each has. Raises InfrastructureFault for a file of a table or column that is not there.
    """
    tables = _tables(connection)
    unknown = {path.name.removesuffix(_SUFFIX) for path in folder.iterdir()} - {table.name for table in tables}
    if unknown:
        raise InfrastructureFault(f"{folder} has tables that this version does not make: {', '.join(sorted(unknown))}.")
    for table in reversed(tables):
        connection.execute(table.delete())
    return {table.name: _read_table(connection, table, _file(folder, table)) for table in tables}


def _tables(connection: Connection) -> list[Table]:
    """What rows refer to comes before them."""
    metadata = MetaData()
    metadata.reflect(connection)
    tables = [table for table in metadata.sorted_tables if table.name != _REVISIONS]
    for column in (column for table in tables for column in table.columns):
        if isinstance(column.type, JSON):
            column.type = JSON(none_as_null=True)
    return tables


def _file(folder: Path, table: Table) -> Path:
    return folder / f"{table.name}{_SUFFIX}"


def _write_table(connection: Connection, table: Table, folder: Path) -> int:
    count = 0
    with gzip.open(_file(folder, table), "wt", encoding="utf-8", compresslevel=3) as file:
        file.write(json.dumps([column.name for column in table.columns]) + "\n")
        for row in connection.execution_options(yield_per=_BATCH).execute(select(table)):
            file.write(json.dumps(list(row), default=_plain) + "\n")
            count += 1
    return count


def _plain(value: object) -> str:
    """What JSON has no word for; the column's type says what it was."""
    match value:
        case bytes() | memoryview():
            return base64.b64encode(value).decode()
        case datetime() | date():
            return value.isoformat()
    raise TypeError(f"a {type(value).__name__} cannot be backed up: publisher.store.dump does not know it")


def _read_table(connection: Connection, table: Table, path: Path) -> int:
    if not path.exists():
        return 0
    with gzip.open(path, "rt", encoding="utf-8") as file:
        names = json.loads(next(file))
        unknown = set(names) - {column.name for column in table.columns}
        if unknown:
            raise InfrastructureFault(f"{path} has columns that table {table.name} has not: {', '.join(unknown)}.")
        columns, count = [table.columns[name] for name in names], 0
        while lines := list(islice(file, _BATCH)):
            connection.execute(insert(table), [_row(columns, json.loads(line)) for line in lines])
            count += len(lines)
    _go_on_counting(connection, table)
    return count


def _row(columns: list[Column[Any]], values: list[Any]) -> dict[str, Any]:
    return {column.name: _value(column, value) for column, value in zip(columns, values, strict=True)}


def _value(column: Column[Any], value: Any) -> Any:
    if isinstance(value, str) and isinstance(column.type, LargeBinary):
        return base64.b64decode(value)
    if isinstance(value, str) and isinstance(column.type, DateTime):
        return datetime.fromisoformat(value)
    return value


def _go_on_counting(connection: Connection, table: Table) -> None:
    """PostgreSQL numbers new rows by sequences, which do not see numbers that rows bring along."""
    if connection.dialect.name != "postgresql":
        return
    for column in table.columns:
        if not isinstance(column.type, Integer):
            continue
        name = connection.scalar(
            sql("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table.name, "column": column.name}
        )
        if name is not None:
            last = connection.scalar(select(func.max(column)))
            connection.execute(select(func.setval(name, last or 1, last is not None)))
