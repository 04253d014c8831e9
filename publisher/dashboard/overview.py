"""The first page: what runs, what needs somebody, what waits and for what, which workers are there, what was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session, joinedload, load_only

from publisher.api.service import CurrentService
from publisher.api.tenant_events import last_number
from publisher.api.workers import known_workers
from publisher.api.workers_schema import WorkerAnswer, WorkerState
from publisher.dashboard import job_rows
from publisher.dashboard.access import CurrentVisitor
from publisher.dashboard.answers import PageRoute, page
from publisher.dashboard.first_steps import first_steps
from publisher.dashboard.job_rows import Entry
from publisher.dashboard.presentation import percent
from publisher.jobs import census
from publisher.jobs.census import Group
from publisher.jobs.outlook import Outlook, outlooks
from publisher.jobs.waiting import WaitKind
from publisher.manifest.verdict import Verdict
from publisher.store import filters as filtered
from publisher.store.database import clock
from publisher.store.filters import Filters
from publisher.store.models import Job, Variant
from publisher.store.paging import newest_first
from publisher.store.states import ACTIVE, JobState

router = APIRouter(prefix="/overview", route_class=PageRoute)

#: lines of each part; the lists have the rest
MOST = 12
FEW = 6
#: of the newest that ended those are chosen that did so last, or failed alike: a job may have waited for long
LATELY = 50
#: seconds that a failure needs somebody
REMEMBERED = 7 * 86_400.0
_WITH_RESULT = (
    load_only(Job.variant_id, Job.finished_at),
    joinedload(Job.variant).load_only(Variant.publish_repo_id, Variant.reduction, Variant.verdict),
)


@dataclass(frozen=True)
class Running:
    """`speed` in tokens per second, None where it is not known."""

    entry: Entry
    outlook: Outlook
    speed: float | None

    @property
    def percent(self) -> float | None:
        """Of the whole job's time; of its stage where nothing tells how long the others take."""
        return self.entry.percent if self.outlook.share is None else percent(self.outlook.share)


@dataclass(frozen=True)
class Blocked:
    """Queued jobs that wait for one kind of thing, and what the oldest of them says."""

    kind: str
    jobs: int
    message: str
    way_out: str


@dataclass(frozen=True)
class Failed:
    """Jobs that failed of late at the same place with the same words; `job` is the newest of them. `at_least`: older
    ones may have, too, which were not looked at."""

    job: Job
    jobs: int
    at_least: bool = False


@dataclass(frozen=True)
class Machine:
    """A worker, and which of this tenant's jobs it has."""

    worker: WorkerAnswer
    job: Job | None


@dataclass(frozen=True)
class Published:
    job: Job
    reduction: float | None
    verdict: Verdict | None


@router.get("")
def overview(service: CurrentService, visitor: CurrentVisitor) -> HTMLResponse:
    tenant_id, patience = visitor.tenant_id, service.settings.lease_seconds
    with service.database.read() as session:
        now = clock(session)
        number = last_number(session, tenant_id)
        counts = filtered.count_by_state(session, tenant_id, Filters())
        groups = census.groups(session, tenant_id)
        workers = known_workers(session, patience)
        live = _newest(session, tenant_id, ACTIVE, max(MOST, len(workers)))
        return page(
            "overview.html",
            visitor=visitor,
            now=now,
            number=number,
            counts=counts,
            states=job_rows.STATES,
            running=running(session, live[:MOST], patience),
            queue=sorted((group for group in groups if group.state is JobState.QUEUED), key=_place),
            words=WAITING,
            queues=job_rows.QUEUES,
            blocked=blocked(session, tenant_id, groups),
            failed=failed(_newest(session, tenant_id, [JobState.FAILED], LATELY), now),
            machines=machines(workers, live),
            published=published(session, tenant_id),
            steps=None if counts else first_steps(session, tenant_id, service.settings.public_url),
        )


WAITING = job_rows.WAITING | {census.RETRY: "its next try"}


def _place(group: Group) -> tuple[int, str]:
    known = list(job_rows.QUEUES)
    return known.index(group.queue) if group.queue in known else len(known), group.waiting_for or ""


def _newest(session: Session, tenant_id: str, states: Sequence[JobState], limit: int) -> Sequence[Job]:
    mine = filtered.jobs(tenant_id, Filters(states=states)).options(*job_rows.WITH_NAMES)
    return newest_first(session, mine, Job, None, limit).items


def running(session: Session, jobs: Sequence[Job], patience: float) -> list[Running]:
    ahead, speeds = outlooks(session, jobs, patience), census.speeds_of(session, [job.id for job in jobs])
    return [Running(entry, ahead[entry.job.id], speeds.get(entry.job.id)) for entry in job_rows.entries(session, jobs)]


def blocked(session: Session, tenant_id: str, groups: Sequence[Group]) -> list[Blocked]:
    """What somebody can do something about: waiting that says a way out."""
    counted = {
        kind: sum(group.jobs for group in groups if group.waiting_for == kind)
        for kind in (kind.value for kind in WaitKind)
    }
    found = []
    for kind, number in counted.items():
        waiting = _said(session, tenant_id, kind) if number else None
        if waiting and waiting.get("way_out"):
            found.append(Blocked(kind, number, waiting["message"], waiting["way_out"]))
    return found


def _said(session: Session, tenant_id: str, kind: str) -> dict[str, str] | None:
    asking = newest_first(session, filtered.jobs(tenant_id, Filters(waiting_for=kind)), Job, None, 1).items
    return asking[0].waiting if asking else None


def failed(jobs: Sequence[Job], now: float) -> list[Failed]:
    """Older ones are left to the list: somebody has left them as they are."""
    alike: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        if job.failure and now - (job.finished_at or now) < REMEMBERED:
            alike.setdefault((job.failure.get("stage") or "", job.failure["message"]), []).append(job)
    at_least = len(jobs) == LATELY
    return [Failed(each[0], len(each), at_least) for each in alike.values()][:FEW]


def machines(workers: Sequence[WorkerAnswer], live: Sequence[Job]) -> list[Machine]:
    """Those that are there first, those with a job of this tenant before others."""
    mine = {job.worker: job for job in live}
    found = [Machine(worker, mine.get(worker.id)) for worker in workers]
    return sorted(found, key=lambda each: (each.worker.state is WorkerState.AWAY, each.job is None))


def published(session: Session, tenant_id: str) -> list[Published]:
    mine = filtered.jobs(tenant_id, Filters(states=[JobState.SUCCEEDED])).options(*_WITH_RESULT)
    rows = newest_first(session, mine, Job, None, LATELY).items
    last = sorted(rows, key=lambda job: job.finished_at or 0.0, reverse=True)[:FEW]
    return [Published(job, job.variant.reduction, _verdict(job.variant.verdict)) for job in last]


def _verdict(stored: str | None) -> Verdict | None:
    """None, too, for a word of a later version."""
    return Verdict(stored) if stored in {verdict.value for verdict in Verdict} else None
