"""Connections and transactions: SQLite in WAL mode or PostgreSQL through psycopg 3, with one meaning on both."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Float, create_engine, event, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import IntegrityError, InvalidatePoolError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

#: How long a SQLite writer waits for the others before "database is locked", in milliseconds. Transactions here
#: last milliseconds, so half a minute is reached only when a disk hangs.
BUSY_TIMEOUT = 30_000

#: A server that vanished without a word is noticed within this time: seconds to connect, milliseconds for an answer
#: to what was sent. Without them the kernel waits for a quarter of an hour.
POSTGRESQL_PATIENCE = {"connect_timeout": 10, "tcp_user_timeout": 20_000}

#: A connection that lay unused for longer is tried before it is given out: no server restarts within a second, and of a
#: service under load every transaction would begin with one question more.
IDLE_SECONDS = 1.0
_RETURNED = "returned to the pool at"


class database_now(GenericFunction[float]):
    """The database's clock in seconds since 1970: one clock for every API replica and worker."""

    type = Float()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite_now(element: database_now, compiler: SQLCompiler, **kwargs: Any) -> str:
    # unixepoch('subsec') needs SQLite 3.42; a Julian day as a double resolves 0.04 ms
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _postgresql_now(element: database_now, compiler: SQLCompiler, **kwargs: Any) -> str:
    # now() would stand still within a transaction
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


def clock(session: Session) -> float:
    """What the database's clock says."""
    return float(session.scalars(select(database_now())).one())


def added_first(session: Session, row: object) -> bool:
    """Add a row; False, and nothing is changed, if another one has its place, also one that is committed meanwhile.

    Not after jobs' events of the same transaction, which a savepoint's end would take away."""
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        return False
    return True


class Database:
    """An engine with the two kinds of transaction that the product uses.

    Nothing is handed to the queue inside `write()`: dispatch after the block, when the rows are there to be found.
    """

    def __init__(self, url: str) -> None:
        self.engine = create_database_engine(url)
        self._writer = self.engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view (SQLite) or one per statement (PostgreSQL); whatever is changed is thrown away."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Commits at the end, rolls back on any error. On SQLite it holds the write lock from its first statement."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        self.engine.dispose()


def create_database_engine(url: str) -> Engine:
    """An engine for `sqlite:///…` or `postgresql://…`; creates the folder of a SQLite file.

    Its errors name the statement and not the values, some of which are nobody's business in a log.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _create_sqlite(parsed)
    if parsed.get_backend_name() == "postgresql":
        url_of_driver = parsed.set(drivername="postgresql+psycopg")
        return _create_postgresql(url_of_driver)
    raise ValueError(
        f"database URL of kind {parsed.get_backend_name()!r}: only sqlite:///… and postgresql://… are supported; "
        "set PUBLISHER_DATABASE_URL"
    )


def _create_postgresql(url: URL) -> Engine:
    engine = create_engine(url, hide_parameters=True, connect_args=POSTGRESQL_PATIENCE)
    event.listen(engine, "checkin", _note_return)

    def refuse_dead(connection: DBAPIConnection, record: ConnectionPoolEntry, _: PoolProxiedConnection) -> None:
        now = time.monotonic()
        if now - record.info.get(_RETURNED, now) <= IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error  # it opens another

    event.listen(engine, "checkout", refuse_dead)
    return engine


def _note_return(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.info[_RETURNED] = time.monotonic()


def _create_sqlite(url: URL) -> Engine:
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT / 1000, "check_same_thread": False},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    # the driver's own BEGIN comes too late (before the first write, not before the first read): SQLAlchemy sends it
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # NORMAL keeps the file whole after a power cut, and in WAL mode spares an fsync per commit
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # BEGIN IMMEDIATE takes the write lock first: a transaction that reads, then writes can't find itself outdated
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))
