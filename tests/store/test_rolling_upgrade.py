"""What a migration may do, since processes of the version before go on over the new tables until they are replaced.

It takes away no table or column that they read, and asks them for none that they do not know. Columns go in two steps:
a version stops using them, the next one drops them, and RELEASED moves on.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Boolean, Column, Connection, Float, Integer, MetaData, Table, insert, select

from publisher.store import migrate
from publisher.store.database import create_database_engine

#: the last migration of the version before
RELEASED = "0010"


def test_the_version_before_can_read_and_write_the_new_tables(empty_database_url: str) -> None:
    engine = create_database_engine(empty_database_url)
    try:
        migrate.upgrade(empty_database_url, RELEASED)
        with engine.connect() as connection:
            known = tables(connection)
        migrate.upgrade(empty_database_url)
        for table in known:
            with engine.begin() as connection:
                connection.execute(insert(table).values(row(table)))
        for table in known:
            with engine.connect() as connection:
                (found,) = connection.execute(select(table)).mappings()
            assert dict(found) == row(table), table.name
    finally:
        engine.dispose()


def test_rows_of_the_version_before_are_there_after_the_upgrade(empty_database_url: str) -> None:
    engine = create_database_engine(empty_database_url)
    try:
        migrate.upgrade(empty_database_url, RELEASED)
        with engine.begin() as connection:
            known = tables(connection)
            for table in known:
                connection.execute(insert(table).values(row(table)))
        migrate.upgrade(empty_database_url)
        with engine.connect() as connection:
            for table in known:
                (found,) = connection.execute(select(table)).mappings()
                assert dict(found) == row(table), table.name
    finally:
        engine.dispose()


def tables(connection: Connection) -> list[Table]:
    """Those that there are, as they are; what rows refer to first."""
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def row(table: Table) -> dict[str, Any]:
    """One that refers to the others of its kind: every id is the same."""
    return {column.name: value_for(column) for column in table.columns}


def value_for(column: Column[Any]) -> Any:
    for kind, value in ((Boolean, True), (Integer, 1), (Float, 0.5), (JSON, {"k": 1})):
        if isinstance(column.type, kind):
            return value
    return "queued" if column.name == "state" else "x"
