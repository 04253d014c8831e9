"""Several who change something at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import select
from sqlalchemy.orm import Session

from publisher.errors import Conflict, NotFound
from publisher.store.database import Database
from publisher.store.models import Tenant


def at_once(database: Database, *works: Callable[[Session], object]) -> list[object]:
    """What each does in a transaction of its own, begun before any other ends: what it returns, or a fault."""
    begun = threading.Barrier(len(works))
    several = database.engine.dialect.name == "postgresql"  # SQLite has one writer at a time

    def run(work: Callable[[Session], object]) -> object:
        try:
            with database.write() as session:
                session.scalar(select(Tenant.id).limit(1))
                if several:
                    begun.wait(10)
                return work(session)
        except (Conflict, NotFound) as fault:
            return fault

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))
