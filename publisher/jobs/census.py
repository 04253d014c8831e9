"""How many jobs wait for what and since when, and what the workers that run the others do: numbers for monitoring."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import case, func, null, select
from sqlalchemy.orm import Session

from publisher.jobs.fleet import busy_workers, capacity_of, machine_of
from publisher.jobs.waiting import WaitKind
from publisher.store.database import clock
from publisher.store.filters import TURN
from publisher.store.models import Job, MetricPoint, Worker
from publisher.store.resources import all_workers
from publisher.store.states import ACTIVE, JobState

#: what a queued job waits for beside the kinds of WaitKind and its turn
RETRY = "retry"
_UNFINISHED = (JobState.QUEUED, JobState.PAUSED, *ACTIVE)


@dataclass(frozen=True)
class Group:
    """Unfinished jobs of one queue in one state; of queued ones, those that wait for one thing, and how long the oldest
    has been queued, in seconds."""

    queue: str
    state: JobState
    waiting_for: str | None
    jobs: int
    oldest: float


@dataclass(frozen=True)
class WorkerNumbers:
    """`doing`: idle or busy; stopped when it was shut down; silent when it was not seen for a lease and was not.
    `capacity`: the largest queue whose jobs it may hold. Seconds and bytes."""

    name: str
    kind: str
    capacity: str
    doing: str
    age: float
    free_disk: int | None


def groups(session: Session, tenant_id: str | None = None) -> list[Group]:
    """Of the jobs that have not ended: of all tenants together, or of one."""
    now = clock(session)  # once: the database's own function would be called for each row
    otherwise = case((Job.claimable_at > now, RETRY), else_=TURN)
    each = select(
        func.coalesce(Job.queue, "").label("queue"),
        Job.state.label("state"),
        case((Job.state == JobState.QUEUED, func.coalesce(Job.waiting_kind, otherwise)), else_=null()).label("kind"),
        Job.queued_at.label("since"),
    )
    mine = () if tenant_id is None else (Job.tenant_id == tenant_id,)
    jobs = each.where(Job.state.in_(_UNFINISHED), *mine).subquery()
    columns = (jobs.c.queue, jobs.c.state, jobs.c.kind)
    rows = session.execute(select(*columns, func.count(), func.min(jobs.c.since)).group_by(*columns)).all()
    return [Group(queue, state, kind, number, _age(since, now)) for queue, state, kind, number, since in rows]


def _age(since: float | None, now: float) -> float:
    return 0.0 if since is None else max(0.0, now - since)


def unserved(session: Session) -> dict[str, int]:
    """Queue → jobs in it that wait for a worker that holds them."""
    waiting = select(func.coalesce(Job.queue, ""), func.count()).where(
        Job.state == JobState.QUEUED, Job.waiting_kind == WaitKind.WORKER.value
    )
    return dict(session.execute(waiting.group_by(Job.queue).order_by(Job.queue)).all())


def workers(session: Session, patience: float) -> list[WorkerNumbers]:
    """Those that are not forgotten. `patience`: seconds after which a silent one is gone."""
    busy, now = busy_workers(session), clock(session)
    return [_numbers(row, now - row.seen_at, patience, is_busy=row.id in busy) for row in all_workers(session)]


def _numbers(row: Worker, age: float, patience: float, *, is_busy: bool) -> WorkerNumbers:
    capacity = capacity_of(row)
    largest = (capacity.consumed or [""])[-1]
    doing = "busy" if is_busy else "idle"
    if row.stopped_at is not None:
        doing = "stopped"
    elif age > patience:
        doing = "silent"
    return WorkerNumbers(row.id, machine_of(row).value, largest, doing, max(0.0, age), row.free_disk_bytes)


_LAST_SPEED = (
    select(MetricPoint.value)
    .where(MetricPoint.job_id == Job.id, MetricPoint.name == "tokens_per_second")
    .order_by(MetricPoint.step.desc())
    .limit(1)
    .correlate(Job)
    .scalar_subquery()
)


def alignment_speeds(session: Session) -> dict[str, float]:
    """Worker → tokens per second that its job last reported, of those that align now."""
    rows = session.execute(select(Job.worker, _LAST_SPEED).where(Job.state.in_(ACTIVE), Job.stage == "align"))
    return {worker: speed for worker, speed in rows if worker and speed is not None}


def speeds_of(session: Session, ids: Collection[str]) -> dict[str, float]:
    """Job → tokens per second that it last reported, of those of these that align now."""
    align = select(Job.id, _LAST_SPEED).where(Job.id.in_(ids), Job.state.in_(ACTIVE), Job.stage == "align")
    return {id: speed for id, speed in session.execute(align) if speed is not None}
