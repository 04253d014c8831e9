"""Pages of jobs: the list and its lines, the event streams, pause, resume, cancel and retry."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from publisher.api import job_events, tenant_events
from publisher.api.event_streams import Position
from publisher.api.service import CurrentService
from publisher.api.tenant_events import WantedEvents, last_number
from publisher.dashboard import job_rows
from publisher.dashboard.access import ActingVisitor, CurrentVisitor, SignedOut
from publisher.dashboard.answers import PageRoute, page, see_other
from publisher.dashboard.first_steps import first_steps
from publisher.dashboard.job_rows import CurrentlyAsked, RowIds
from publisher.dashboard.listing import find
from publisher.jobs import service as job_service
from publisher.store import filters as filtered
from publisher.store import orders
from publisher.store.database import clock
from publisher.store.filters import Filters
from publisher.store.models import Job
from publisher.store.resources import base_model_names
from publisher.store.tenancy import owned

router = APIRouter(prefix="/jobs", route_class=PageRoute)
live = APIRouter(route_class=PageRoute)


@router.get("")
def jobs(service: CurrentService, visitor: CurrentVisitor, asked: CurrentlyAsked) -> HTMLResponse:
    listing = asked.listing
    with service.database.read() as session:
        number = last_number(session, visitor.tenant_id)
        mine = filtered.jobs(visitor.tenant_id, asked.filters).options(*job_rows.WITH_NAMES)
        found = find(session, mine, Job, orders.JOBS, listing)
        in_any_state = replace(asked.filters, states=())
        base_models = base_model_names(session, visitor.tenant_id)
        empty = not found.rows and listing.is_as_it_is
        return page(
            "jobs.html",
            visitor=visitor,
            now=clock(session),
            number=number,
            jobs=job_rows.entries(session, found.rows),
            found=found,
            listing=listing,
            counts=filtered.count_by_state(session, visitor.tenant_id, in_any_state),
            base_models=base_models,
            narrowed=list(job_rows.narrowed_by(listing, base_models)),
            choices=job_rows,
            steps=first_steps(session, visitor.tenant_id, service.settings.public_url) if empty else None,
        )


@router.get("/rows")
def rows(service: CurrentService, visitor: CurrentVisitor, ids: RowIds) -> HTMLResponse:
    """Lines of the list, for its script: those of these jobs that there are, in no order."""
    with service.database.read() as session:
        mine = filtered.jobs(visitor.tenant_id, Filters()).options(*job_rows.WITH_NAMES)
        found = orders.rows_of(session, mine, Job, ids)
        return page("job_rows.html", visitor=visitor, now=clock(session), jobs=job_rows.entries(session, found))


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
