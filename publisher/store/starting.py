"""What every process of the service needs before it starts, looked at while somebody still reads what is said.

A server logs what an application raises frame by frame, and ends with a status of its own or goes on: so this comes
first, and ends the process with one sentence and status 1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from publisher.errors import InfrastructureFault, PublisherError
from publisher.settings import Settings
from publisher.store.database import create_database_engine
from publisher.store.faults import database_fault
from publisher.store.private import keep_private


@contextmanager
def said_at_start() -> Iterator[None]:
    """SystemExit with the sentence of a PublisherError in its stead."""
    try:
        yield
    except PublisherError as error:
        raise SystemExit(f"Error: {error}") from None


def refuse_unusable(settings: Settings) -> None:
    """Raises InfrastructureFault if data folder, signing secret or database cannot be used; makes the first two if they
    are not there. A broker that is away is no reason: jobs wait for it.

    What the process makes from here on is its own alone, as after keep_private.
    """
    before = keep_private(settings)
    try:
        _secret(settings)
        refuse_unusable_database(settings.resolved_database_url)
    except BaseException:
        os.umask(before)
        raise


def _secret(settings: Settings) -> None:
    try:
        settings.secret_bytes()
    except OSError as error:
        raise InfrastructureFault(
            f"user {os.geteuid()} cannot read or make the signing secret {settings.data_dir / 'secret'}: "
            f"{error.strerror}.",
            way_out="Give the file to this user, or set PUBLISHER_SECRET or PUBLISHER_SECRET_FILE.",
        ) from error


def refuse_unusable_database(url: str) -> None:
    """Raises InfrastructureFault if nobody can connect to it."""
    try:
        engine = create_database_engine(url)
    except OSError as error:
        raise InfrastructureFault(
            f"the folder of the database, {error.filename}, cannot be made by user {os.geteuid()}: {error.strerror}.",
            way_out="Set PUBLISHER_DATABASE_URL or PUBLISHER_DATA_DIR to a place that this user may write to.",
        ) from error
    try:
        with engine.connect():
            pass
    except DatabaseError as error:
        raise _unusable(error, engine.url) from error
    finally:
        engine.dispose()


def _unusable(error: SQLAlchemyError, url: URL) -> InfrastructureFault:
    if url.host is None:
        return database_fault(error, url)
    said = " ".join(str(getattr(error, "orig", error)).split()).rstrip("?. ")
    return InfrastructureFault(
        f"The database {url.database} at {url.host}:{url.port or 5432} cannot be used: {said}.",
        way_out="PUBLISHER_DATABASE_URL says where it is; start it, or set that.",
    )
