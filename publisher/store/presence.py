"""The API processes of an installation that are there now, each of which says so every few seconds."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

from publisher.store.database import database_now
from publisher.store.models import ServiceProcess

#: seconds between two signs of life, and after how many without one a process is gone
SEEN_EVERY, GONE_AFTER = 5.0, 30.0

#: PostgreSQL's advisory lock for registering; "lorap" in ASCII
_LOCK = 0x6C6F726170


def alone(session: Session) -> None:
    """Nobody else registers until the transaction ends; SQLite has one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def others(session: Session, id: str) -> Sequence[ServiceProcess]:
    """Those that were seen lately, by age; rows of those that were not are taken away."""
    session.execute(delete(ServiceProcess).where(ServiceProcess.seen_at < database_now() - GONE_AFTER))
    return session.scalars(
        select(ServiceProcess).where(ServiceProcess.id != id).order_by(ServiceProcess.started_at)
    ).all()


def add(session: Session, process: ServiceProcess) -> None:
    process.started_at = process.seen_at = session.scalars(select(database_now())).one()
    session.add(process)


def see(session: Session, id: str) -> bool:
    """Whether its row is still there: it was taken away if the process stood still for long."""
    now = update(ServiceProcess).where(ServiceProcess.id == id).values(seen_at=database_now())
    return session.scalar(now.returning(ServiceProcess.id).execution_options(synchronize_session=False)) is not None


def forget_all(session: Session) -> None:
    """Where none of them can be there: in a database that was just restored."""
    session.execute(delete(ServiceProcess))


def remove(session: Session, id: str) -> None:
    session.execute(delete(ServiceProcess).where(ServiceProcess.id == id))
