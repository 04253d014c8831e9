"""Bring a database to the tables that this version of the code expects. Safe to run from every process at its start.

As a step of its own, before any of them: python -m publisher.store.migrate
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from filelock import FileLock
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from publisher.files.private import umask_of
from publisher.settings import settings
from publisher.store.database import create_database_engine
from publisher.store.starting import refuse_unusable_database, said_at_start

#: PostgreSQL's advisory locks are numbers; this one is "loram" in ASCII.
_ADVISORY_LOCK = 0x6C6F72616D


def upgrade(url: str, revision: str = "head") -> None:
    """Run the revisions that are missing; of several processes one does it and the others wait."""
    _run(url, lambda config: command.upgrade(config, revision))


def downgrade(url: str, revision: str) -> None:
    """Undo revisions down to `revision` (`base`: all of them, and all data with them)."""
    _run(url, lambda config: command.downgrade(config, revision))


def _run(url: str, work: Callable[[Config], None]) -> None:
    engine = create_database_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _without_foreign_keys)
    try:
        with _alone(engine), engine.begin() as connection:
            before = _revisions(connection)
            work(_config(connection))
            if _revisions(connection) != before:
                _refuse_broken_references(engine, connection)
    finally:
        engine.dispose()


def _without_foreign_keys(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    """SQLite changes a table by a copy that takes its place. To drop the old one counts as deleting its rows, which
    others refer to; and what is enforced cannot be changed within a transaction."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = OFF")
    cursor.close()


def _broken_references(connection: Connection) -> set[tuple[Any, ...]]:
    """Rows that refer to nothing, in SQLite: (table, rowid, …)."""
    if connection.dialect.name != "sqlite":
        return set()
    return {tuple(row) for row in connection.exec_driver_sql("PRAGMA foreign_key_check")}


def _refuse_broken_references(engine: Engine, connection: Connection) -> None:
    """Before anything is committed. What another connection sees broken was so before."""
    broken = _broken_references(connection)
    if broken:
        with engine.connect() as before:
            broken -= _broken_references(before)
    if broken:
        tables = ", ".join(sorted({str(row[0]) for row in broken}))
        raise RuntimeError(f"the migration would leave {len(broken)} rows that refer to nothing, in {tables}; undone")


def _revisions(connection: Connection) -> tuple[str, ...]:
    return MigrationContext.configure(connection).get_current_heads()


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """Nobody else migrates this database meanwhile."""
    if engine.dialect.name == "sqlite":
        with FileLock(f"{engine.url.database}.migrating"):
            yield
        return
    # a session's lock, on a connection of its own: it holds beyond the commit of the migration
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY_LOCK})
        yield
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _ADVISORY_LOCK})


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _scripts() -> Path:
    spec = find_spec("migrations")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


if __name__ == "__main__":
    with said_at_start():
        os.umask(umask_of(group=settings().group_access))
        refuse_unusable_database(settings().resolved_database_url)
        upgrade(settings().resolved_database_url)
