"""Bring a database to the tables that this version of the code expects. Safe to run from every process at its start.

As a step of its own, before any of them: python -m publisher.store.migrate
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock
from sqlalchemy import Connection, Engine, event, inspect, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from publisher.errors import RequestFault
from publisher.files.private import umask_of
from publisher.settings import Settings, settings
from publisher.store.database import create_database_engine
from publisher.store.starting import refuse_unusable_database, said_at_start

logger = logging.getLogger(__name__)

#: PostgreSQL's advisory locks are numbers; this one is "loram" in ASCII.
_ADVISORY_LOCK = 0x6C6F72616D


def upgrade(url: str, revision: str = "head") -> None:
    """Run the revisions that are missing; of several processes one does it and the others wait."""
    _run(url, lambda config: command.upgrade(config, revision))


def prepare(settings: Settings) -> None:
    """What a process of the service does at its start: `upgrade`, or, where that is done apart from it, refuse to start
    before it was. Raises RequestFault.

    Tables of a newer version are left as they are: while machines are brought to it one by one, those of this version
    go on, and may have to start again. So a version takes away nothing that the one before it reads or writes.
    """
    url = settings.resolved_database_url
    now = standing(url)
    if now.unknown:
        logger.warning("the database is at revision %s, of a newer version; this one works on it", now.revision)
    elif settings.migrate_at_start:
        upgrade(url)
    elif now.pending:
        raise RequestFault(
            f"The database lacks {len(now.pending)} migrations, the first of them {now.pending[0][0]}: "
            f"{now.pending[0][1]}",
            way_out="Run `publisher admin migrate`, or set PUBLISHER_MIGRATE_AT_START to true.",
        )


def downgrade(url: str, revision: str) -> None:
    """Undo revisions down to `revision` (`base`: all of them, and all data with them)."""
    _run(url, lambda config: command.downgrade(config, revision))


def rebuild(url: str, revision: str, fill: Callable[[Connection], None]) -> None:
    """The tables of `revision`, filled by `fill`, in one transaction: they are there with their rows, or not at all.

    Raises RequestFault for a database that somebody's rows are in.
    """

    def work(config: Config) -> None:
        connection: Connection = config.attributes["connection"]
        refuse_used(connection)
        command.downgrade(config, "base")
        command.upgrade(config, revision)
        fill(connection)

    _run(url, work)


def refuse_used(connection: Connection) -> None:
    """RequestFault where a tenant is: everything that people make is one's."""
    count = tenants_in(connection)
    if count:
        raise RequestFault(
            f"The database {connection.engine.url.render_as_string()} is in use: it has {count} tenants.",
            way_out="Name an empty one in PUBLISHER_DATABASE_URL, or for SQLite another PUBLISHER_DATA_DIR.",
        )


def tenants_in(connection: Connection) -> int:
    """How many; 0 also where there are no tables."""
    if not inspect(connection).has_table("tenants"):
        return 0
    return int(connection.scalar(text("SELECT count(*) FROM tenants")) or 0)


@dataclass(frozen=True)
class Standing:
    """Where a database is: `revision` None without tables; `pending`: (revision, what it does), in their order.

    `unknown`: it was made by a version that is newer than this code.
    """

    revision: str | None
    pending: tuple[tuple[str, str], ...]
    unknown: bool


def is_known(revision: str) -> bool:
    """Whether this version has the migration."""
    return any(script.revision == revision for script in _all_scripts().walk_revisions())


def standing(url: str) -> Standing:
    """Changes nothing."""
    engine = create_database_engine(url)
    try:
        with engine.connect() as connection:
            revision = current_revision(connection)
    finally:
        engine.dispose()
    known = [(script.revision, _first_line(script.doc)) for script in _all_scripts().walk_revisions()][::-1]
    numbers = [number for number, _ in known]
    if revision is not None and revision not in numbers:
        return Standing(revision, (), unknown=True)
    done = 0 if revision is None else numbers.index(revision) + 1
    return Standing(revision, tuple(known[done:]), unknown=False)


def current_revision(connection: Connection) -> str | None:
    """Which migration was the last; None for a database without tables."""
    return next(iter(_revisions(connection)), None)


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]


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
    config = _located()
    config.attributes["connection"] = connection
    return config


def _located() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    return config


def _all_scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_located())


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
