"""Sessions of the dashboard that were ended by signing out: a cookie is good until its time is over, or it is here."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from publisher.store.database import database_now
from publisher.store.models import EndedSession


def end(session: Session, id: str, expires: float) -> None:
    """From now on the session with this id does not count; `expires` in seconds since 1970, when it is over anyway."""
    session.execute(delete(EndedSession).where(EndedSession.expires_at < database_now()))
    session.merge(EndedSession(id=id, expires_at=expires))


def ended(session: Session, ids: Collection[str]) -> set[str]:
    """Those of these sessions that were ended."""
    return set(session.scalars(select(EndedSession.id).where(EndedSession.id.in_(ids))))
