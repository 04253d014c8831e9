"""A job's events as Server-Sent Events: resumable without loss or repeat."""

from __future__ import annotations

from fastapi import APIRouter, Request, status
from fastapi.responses import Response, StreamingResponse

from publisher.api.authentication import CurrentCaller
from publisher.api.errors import documented
from publisher.api.event_sources import JOB
from publisher.api.event_streams import STREAMS, Position, stream
from publisher.api.service import CurrentService
from publisher.store.models import Job
from publisher.store.tenancy import owned

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get(
    "/{id}/events",
    name="follow_job",
    response_class=StreamingResponse,
    responses=documented(401, 404) | STREAMS | {204: {"description": "finished, nothing new"}},
)
def follow(
    id: str,
    request: Request,
    service: CurrentService,
    caller: CurrentCaller,
    position: Position,
) -> Response:
    """Follow a job's events as Server-Sent Events.

    `id` counts from 1 without gaps, `event` is state, stage, progress, metric or log, `data` is JSON. The stream
    ends when the job has finished, or the key is revoked. To resume, send the last number as `Last-Event-ID`; browsers
    do by themselves, and stop asking at a 204.
    """
    with service.database.read() as session:
        job = owned(session, Job, caller.tenant_id, id)
    # more than there are: the database is older than what the caller has seen
    number = min(position or 0, job.event_seq)
    if job.state.finished and number == job.event_seq:
        return Response(status_code=status.HTTP_204_NO_CONTENT)
    return stream(request, caller, JOB, id, number)
