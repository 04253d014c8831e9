"""Keeps up what queued jobs say they wait for, as workers come and go."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from publisher.jobs import events
from publisher.jobs.fleet import Fleet, live_fleet
from publisher.jobs.shapes import fill, read_needs
from publisher.jobs.turns import due
from publisher.jobs.waiting import Waiting, WaitKind
from publisher.store.database import Database, clock
from publisher.store.models import Job
from publisher.store.states import JobState

#: jobs per round that say something new, so that no transaction holds many rows for long
BATCH = 200
#: with more kinds of jobs than this that no worker holds, all queued ones are looked at
_NAMED = 500
_WAY_OUT = "Start a worker that holds it, or ask for a recipe that needs less; POST /v1/plans says what one needs."


def keep_waiting_true(database: Database, patience: float) -> int:
    """Have due jobs say which worker is missing, and no longer once it is there; returns how many had to say something
    new. `patience`: seconds after which a silent worker is gone.

    Their waiting is no try and has no patience: `waiting_since` counts that for Hubs and the like.
    """
    with database.read() as session:  # all queued jobs are looked at: nobody waits for that
        changes = list(islice(_changes(session, _missing(session, live_fleet(session, patience))), BATCH))
    if changes:
        with database.write() as session:
            now = clock(session)
            for job_id, message, since in changes:
                _say(session, job_id, message, now if since is None else since)
    return len(changes)


def _say(session: Session, job_id: str, message: str | None, since: float) -> None:
    said = None if message is None else Waiting(WaitKind.WORKER, message, way_out=_WAY_OUT, since=since).as_json()
    events.move(session, job_id, JobState.QUEUED, only_from=[JobState.QUEUED], where=due(), waiting=said)


def fill_shapes(session: Session) -> None:
    """Work out what jobs need that an older version of the service queued."""
    for job_id in session.scalars(select(Job.id).where(*due(), Job.needs_digest.is_(None)).limit(BATCH)).all():
        fill(session, job_id)


def _missing(session: Session, fleet: Fleet) -> dict[str | None, str | None]:
    """What the due jobs of each needs_digest wait for; None: their turn."""
    one_of_each = select(func.min(Job.id)).where(*due()).group_by(Job.needs_digest)
    rows = session.execute(select(Job.needs_digest, Job.needs).where(Job.id.in_(one_of_each)))
    sentences = {digest: fleet.missing(read_needs(needs)) for digest, needs in rows}
    return {digest: sentence and f"{sentence}." for digest, sentence in sentences.items()}


def _changes(session: Session, missing: dict[str | None, str | None]) -> Iterator[tuple[str, str | None, float | None]]:
    """Jobs that say something else than is true, with what is, and since when they wait for a worker, if they do. What
    else one waits for it goes on saying, unless there is no worker for it either."""
    kind, message = (Job.waiting[part].as_string() for part in ("kind", "message"))
    since = Job.waiting["since"].as_float()
    unfit = [digest for digest, true in missing.items() if true is not None]
    where = [] if len(unfit) > _NAMED else [Job.waiting.is_not(None) | Job.needs_digest.in_(unfit)]
    shown = select(Job.id, Job.needs_digest, kind, message, since).where(*due(), *where).order_by(Job.id)
    for job_id, digest, told_kind, told, told_since in session.execute(shown).all():
        true, waits = missing.get(digest), told_kind == WaitKind.WORKER.value
        if true != told and (true is not None or waits):
            yield job_id, true, told_since if waits else None
