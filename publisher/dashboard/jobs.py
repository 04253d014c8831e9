"""Pages of jobs: the list, the event streams, pause, resume, cancel and retry."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session, joinedload

from publisher.api import job_events, tenant_events
from publisher.api.event_streams import Position
from publisher.api.service import CurrentService
from publisher.api.tenant_events import WantedEvents, last_number
from publisher.dashboard.access import ActingVisitor, CurrentVisitor, SignedOut
from publisher.dashboard.answers import PageRoute, page, see_other
from publisher.dashboard.first_steps import first_steps
from publisher.dashboard.listing import PAGE, Cursor
from publisher.jobs import service as job_service
from publisher.jobs.progress import Progress, read_progress, stage_began
from publisher.store.database import clock
from publisher.store.models import Job, Variant
from publisher.store.paging import newest_first
from publisher.store.tenancy import owned, readable_by

router = APIRouter(prefix="/jobs", route_class=PageRoute)
live = APIRouter(route_class=PageRoute)

_WITH_NAMES = joinedload(Job.variant).joinedload(Variant.base_model)


@dataclass(frozen=True)
class Entry:
    """A line of the list; `progress` of the running stage."""

    job: Job
    progress: Progress | None


@router.get("")
def jobs(service: CurrentService, visitor: CurrentVisitor, cursor: Cursor = None) -> HTMLResponse:
    with service.database.read() as session:
        number = last_number(session, visitor.tenant_id)
        mine = readable_by(visitor.tenant_id, Job).options(_WITH_NAMES)
        rows = newest_first(session, mine, Job, cursor, PAGE)
        return page(
            "jobs.html",
            visitor=visitor,
            now=clock(session),
            number=number,
            jobs=[_entry(session, job) for job in rows.items],
            cursor=cursor,
            next_cursor=rows.next_cursor,
            steps=None if rows.items else first_steps(session, visitor.tenant_id, service.settings.public_url),
        )


def _entry(session: Session, job: Job) -> Entry:
    return Entry(job, None if job.state.finished else read_progress(session, job, stage_began(session, job)))


@router.get("/{id}/events")
def events(id: str, request: Request, service: CurrentService, visitor: CurrentVisitor, position: Position) -> Response:
    """The API's stream, for a session instead of a key."""
    return job_events.follow(id, request, service, visitor.caller, position)


@live.get("/events")
def all_events(
    request: Request,
    service: CurrentService,
    visitor: CurrentVisitor,
    position: Position,
    wanted: WantedEvents,
    *,
    session: str = "",
) -> Response:
    """The API's stream of all jobs. A page says whose it is: its tab may outlive a sign-in as somebody else."""
    if session != visitor.session.id:
        raise SignedOut("This page is of another session.", way_out="Open it again.")
    return tenant_events.follow_all(request, service, visitor.caller, position, wanted)


@router.post("/{id}/cancel")
def cancel(id: str, service: CurrentService, visitor: ActingVisitor) -> Response:
    with service.database.write() as session:
        job_service.cancel(session, owned(session, Job, visitor.tenant_id, id).id)
    return see_other(f"/jobs/{id}")


@router.post("/{id}/pause")
def pause(id: str, service: CurrentService, visitor: ActingVisitor) -> Response:
    with service.database.write() as session:
        job_service.pause(session, owned(session, Job, visitor.tenant_id, id).id)
    return see_other(f"/jobs/{id}")


@router.post("/{id}/resume")
def resume(id: str, service: CurrentService, visitor: ActingVisitor) -> Response:
    with service.database.write() as session:
        job_service.resume(session, owned(session, Job, visitor.tenant_id, id).id)
    service.dispatcher.send(id)
    return see_other(f"/jobs/{id}")


@router.post("/{id}/retry")
def retry(id: str, service: CurrentService, visitor: ActingVisitor) -> Response:
    with service.database.write() as session:
        job_service.retry(session, owned(session, Job, visitor.tenant_id, id).id)
    service.dispatcher.send(id)
    return see_other(f"/jobs/{id}")
