"""Keeps up what queued jobs say they wait for, as workers come and go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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
from publisher.store.quotas import JOBS_RUNNING, full_tenants
from publisher.store.states import JobState

#: jobs per round that say something new, so that no transaction holds many rows for long
BATCH = 200
#: with more kinds of jobs than this that no worker holds, all queued ones are looked at
_NAMED = 500
_START_ONE = "Start a worker that holds it, or ask for a recipe that needs less; POST /v1/plans says what one needs."
_ASK_FOR_MORE = "It starts when one of them has ended; the service's operator can allow more."
#: what only this module says, and takes back
_OURS = frozenset({WaitKind.WORKER.value, WaitKind.QUOTA.value})


def keep_waiting_true(database: Database, patience: float) -> int:
    """Have due jobs say which worker is missing, or that their tenant has all running that it may have, and no longer
    once that is over; returns how many had to say something new. `patience`: seconds after which a silent worker is
    gone.

    Their waiting is no try and has no patience: `waiting_since` counts that for Hubs and the like.
    """
    with database.read() as session:  # all queued jobs are looked at: nobody waits for that
        reasons = _Reasons(_missing(session, live_fleet(session, patience)), full_tenants(session))
        changes = list(islice(_changes(session, reasons), BATCH))
    if changes:
        with database.write() as session:
            now = clock(session)
            for job_id, true, since in changes:
                _say(session, job_id, true, now if since is None else since)
    return len(changes)


def _say(session: Session, job_id: str, true: Waiting | None, since: float) -> None:
    said = None if true is None else replace(true, since=since).as_json()
    events.move(session, job_id, JobState.QUEUED, only_from=[JobState.QUEUED], where=due(), waiting=said)


@dataclass(frozen=True)
class _Reasons:
    """Why due jobs wait besides their turn: `missing`, which worker, of each needs_digest; `full`: tenants with as many
    running as they may have, and how many that is."""

    missing: Mapping[str | None, str | None]
    full: Mapping[str, int]

    def of(self, tenant_id: str, digest: str | None) -> Waiting | None:
        sentence = self.missing.get(digest)
        if sentence is not None:
            return Waiting(WaitKind.WORKER, sentence, way_out=_START_ONE)
        most = self.full.get(tenant_id)
        if most is None:
            return None
        return Waiting(WaitKind.QUOTA, f"{JOBS_RUNNING.name} allows {most} running at once.", way_out=_ASK_FOR_MORE)


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


def _changes(session: Session, reasons: _Reasons) -> Iterator[tuple[str, Waiting | None, float | None]]:
    """Jobs that say something else than is true, with what is, and since when they have said the like. What else one
    waits for it goes on saying, unless there is no worker or no place for it either."""
    kind, message = (Job.waiting[part].as_string() for part in ("kind", "message"))
    since = Job.waiting["since"].as_float()
    unfit = [digest for digest, true in reasons.missing.items() if true is not None]
    held_back = Job.needs_digest.in_(unfit) | Job.tenant_id.in_(list(reasons.full))
    where = [] if len(unfit) > _NAMED else [Job.waiting.is_not(None) | held_back]
    columns = (Job.id, Job.tenant_id, Job.needs_digest, kind, message, since)
    said = session.execute(select(*columns).where(*due(), *where).order_by(Job.id))
    for job_id, tenant_id, digest, told_kind, told, told_since in said.all():
        true = reasons.of(tenant_id, digest)
        if true is not None and true.message != told:
            yield job_id, true, told_since if told_kind == true.kind.value else None
        elif true is None and told_kind in _OURS:
            yield job_id, None, None
