"""The events of all of a tenant's jobs in one stream: one connection, however many jobs somebody watches."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse
from sqlalchemy.orm import Session

from publisher.api.authentication import CurrentCaller
from publisher.api.errors import documented
from publisher.api.event_sources import TENANT, Entry
from publisher.api.event_streams import STREAMS, Position, stream
from publisher.api.fan_out import Wanted
from publisher.api.service import CurrentService
from publisher.store.event_feeds import last_of_tenants
from publisher.store.states import EventKind

router = APIRouter(prefix="/v1/events", tags=["jobs"])


def wanted_events(
    kind: Annotated[
        list[EventKind] | None, Query(description="only events of this kind; may be repeated; all if left out")
    ] = None,
    all_of: Annotated[
        list[str] | None,
        Query(max_length=100, description="every event of this job, whatever its kind; may be repeated"),
    ] = None,
) -> Wanted:
    kinds, jobs = frozenset(kind or EventKind), frozenset(all_of or ())

    def wanted(entry: Entry) -> bool:
        return entry.kind in kinds or entry.job_id in jobs

    return wanted


WantedEvents = Annotated[Wanted, Depends(wanted_events)]


def last_number(session: Session, tenant_id: str) -> int:
    """Number of the tenant's last event: a stream from here on, and what is read after this, miss nothing."""
    return last_of_tenants(session, [tenant_id])[tenant_id]


@router.get("", response_class=StreamingResponse, responses=documented(401) | STREAMS)
def follow_all(
    request: Request,
    service: CurrentService,
    caller: CurrentCaller,
    position: Position,
    wanted: WantedEvents,
) -> Response:
    """Follow the events of all your jobs as Server-Sent Events.

    They are those of `/v1/jobs/{id}/events`; `data` also has `job_id`, and `seq`, the number within the job. `id` grows
    over all jobs: send the last one as `Last-Event-ID` to resume without loss or repeat. Without one the stream begins
    with what happens from now on. It never ends by itself.
    """
    with service.database.read() as session:
        last = last_number(session, caller.tenant_id)
    # more than there are: the database is older than what the caller has seen
    number = last if position is None else min(position, last)
    return stream(request, caller, TENANT, caller.tenant_id, number, wanted=wanted)
