"""Why a database does not take what is written: a full disk is mended otherwise than a server that is away."""

from __future__ import annotations

import re

from sqlalchemy.exc import SQLAlchemyError

#: SQLite's SQLITE_FULL, PostgreSQL's 53100, and what the kernel says to both
_FULL = re.compile(r"database or disk is full|No space left on device|DiskFull|Disk quota exceeded")


def is_out_of_disk(error: SQLAlchemyError) -> bool:
    """Whether the disk that holds the database is full."""
    return bool(_FULL.search(f"{type(getattr(error, 'orig', None)).__name__} {error}"))


def why_away(error: SQLAlchemyError) -> str:
    """The reason, for a log."""
    if is_out_of_disk(error):
        return f"the disk that holds the database is full: free space there ({_first_line(error)})"
    return f"database is away: {_first_line(error)}"


def _first_line(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
