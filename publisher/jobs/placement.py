"""Keeps up what queued jobs say they wait for, as workers come and go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from publisher.jobs import events
from publisher.jobs.fleet import Fleet
from publisher.jobs.turns import due, needs_of
from publisher.jobs.waiting import Waiting, WaitKind
from publisher.store.models import Job
from publisher.store.states import JobState

#: jobs per round that say something new, so that no transaction holds many rows for long
BATCH = 200
_WAY_OUT = "Start a worker that holds it, or ask for a recipe that needs less; POST /v1/plans says what one needs."


@dataclass(frozen=True)
class _Shape:
    """Queued jobs of one needs_digest, and what they wait for; None: their turn."""

    digest: str
    missing: str | None


def keep_waiting_true(session: Session, fleet: Fleet) -> int:
    """Have due jobs say which worker is missing, and no longer once it is there; returns how many said anything new.

    Their waiting is no try and has no patience: `waiting_since` counts that for Hubs and the like.
    """
    shapes = _shapes(session, fleet)
    told = 0
    for shape in shapes:
        if shape.missing is not None and told < BATCH:
            waiting = Waiting(WaitKind.WORKER, f"{shape.missing}.", way_out=_WAY_OUT)
            told += _say(session, _untold(session, shape, waiting.message, BATCH - told), waiting)
    fitting = frozenset(shape.digest for shape in shapes if shape.missing is None)
    return told + _say(session, _without_reason(session, fitting, BATCH - told), None)


def _shapes(session: Session, fleet: Fleet) -> list[_Shape]:
    for job_id in session.scalars(select(Job.id).where(*due(), Job.needs_digest.is_(None)).limit(BATCH)).all():
        needs_of(session, job_id, None)
    of_each = select(Job.needs_digest, func.min(Job.id)).where(*due(), Job.needs_digest.is_not(None))
    rows = session.execute(of_each.group_by(Job.needs_digest)).all()
    return [_Shape(digest, fleet.missing(needs_of(session, job_id, digest))) for digest, job_id in rows if digest]


def _untold(session: Session, shape: _Shape, message: str, limit: int) -> Sequence[str]:
    """Those that do not say so yet."""
    other = Job.waiting["message"].as_string().is_distinct_from(message)
    return session.scalars(_ids(Job.needs_digest == shape.digest, other).limit(limit)).all()


def _without_reason(session: Session, fitting: frozenset[str], limit: int) -> Sequence[str]:
    """Those that still say that a worker is missing."""
    waiting = Job.waiting["kind"].as_string() == WaitKind.WORKER.value
    rows = session.execute(
        select(Job.id, Job.needs_digest).where(*due(), Job.waiting.is_not(None), waiting).order_by(Job.id)
    )
    return [job_id for job_id, digest in rows if digest in fitting][:limit]


def _ids(*where: ColumnElement[bool]) -> Select[str]:
    return select(Job.id).where(*due(), *where).order_by(Job.id).with_for_update(skip_locked=True)


def _say(session: Session, ids: Sequence[str], waiting: Waiting | None) -> int:
    said = None if waiting is None else waiting.as_json()
    return sum(
        events.move(session, job_id, JobState.QUEUED, only_from=[JobState.QUEUED], where=due(), waiting=said)
        for job_id in ids
    )
