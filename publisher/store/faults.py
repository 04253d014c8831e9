"""What a database says is wrong, in words: a full disk is no database that does not answer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    DatabaseError,
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
    TimeoutError,
)

from publisher.errors import InfrastructureFault, OutOfDisk

#: errors of a database that are ours: a statement that is wrong, a constraint that nobody looked at
OUR_OWN = (IntegrityError, ProgrammingError, NotSupportedError, DataError)
_AGAIN = "Try again in a moment."
_FREE = "The operator frees space there; then try again."

#: SQLite's primary result codes (https://www.sqlite.org/rescode.html), and what they mean for whoever waits
_SQLITE = {
    sqlite3.SQLITE_READONLY: ("may only be read: its file or disk is read-only", "The operator makes it writable."),
    sqlite3.SQLITE_IOERR: ("cannot be read or written: the disk reports an error", "The operator looks at the disk."),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened: its folder is away or closed to this process", _AGAIN),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "The operator restores it from a backup."),
    sqlite3.SQLITE_NOTADB: ("is damaged: its file holds something else", "The operator restores it from a backup."),
    sqlite3.SQLITE_BUSY: ("is busy with other writers", _AGAIN),
    sqlite3.SQLITE_LOCKED: ("is busy with other writers", _AGAIN),
}
#: PostgreSQL's error codes (appendix A of its manual)
_DISK_FULL = "53100"
_POSTGRESQL = {
    "25006": ("may only be read: this is a standby, or it was set read-only", "The operator points to the primary."),
    "53200": ("has no memory left", _AGAIN),
    "53300": ("has no connection left", _AGAIN),
    "58030": ("cannot read or write its disk", "The operator looks at the disk."),
}


@contextmanager
def database_faults(url: URL) -> Iterator[None]:
    """Raise what `database_fault` says of the database at `url`."""
    try:
        yield
    except (DatabaseError, TimeoutError) as error:
        if isinstance(error, OUR_OWN):
            raise
        raise database_fault(error, url) from error


def database_fault(error: SQLAlchemyError, url: URL) -> InfrastructureFault:
    """What `error`, of the database at `url`, is for people: OutOfDisk where that is what it is."""
    origin = error.orig if isinstance(error, DBAPIError) else None
    if is_out_of_disk(error):
        where = f"under {_folder(url)}" if isinstance(origin, sqlite3.Error) else f"of the database server {url.host}"
        return OutOfDisk(f"The disk {where} is full: the database cannot grow.", way_out=_FREE)
    if isinstance(origin, sqlite3.Error):
        what, way_out = _SQLITE.get(_code(origin), ("does not answer", _AGAIN))
        return InfrastructureFault(f"The database under {_folder(url)} {what}.", way_out=way_out)
    state = origin.sqlstate if isinstance(origin, psycopg.Error) else None
    what, way_out = _POSTGRESQL.get(state or "", ("does not answer", _AGAIN))
    return InfrastructureFault(f"The database {what}.", way_out=way_out)


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the other bits say more closely what it was


def _folder(url: URL) -> str:
    return (url.database or "").rpartition("/")[0] or "."


def is_out_of_disk(error: SQLAlchemyError) -> bool:
    """Whether the disk that holds the database is full."""
    origin = error.orig if isinstance(error, DBAPIError) else None
    if isinstance(origin, sqlite3.Error):
        return _code(origin) == sqlite3.SQLITE_FULL
    return isinstance(origin, psycopg.Error) and origin.sqlstate == _DISK_FULL


def why_away(error: SQLAlchemyError) -> str:
    """The reason, for a log."""
    said = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    if is_out_of_disk(error):
        return f"the disk that holds the database is full: free space there ({said})"
    return f"database is away: {said}"
