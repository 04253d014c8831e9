"""A job's events as Server-Sent Events (WHATWG HTML, section 9.2): resumable without loss or repeat."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, cast

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query, Request, status
from fastapi.responses import Response, StreamingResponse
from pydantic_core import to_json

from publisher.api.authentication import Caller, CurrentCaller
from publisher.api.errors import documented
from publisher.api.job_watch import JobWatch
from publisher.api.service import CurrentService
from publisher.jobs import events
from publisher.store.database import Database
from publisher.store.models import Job, JobEvent
from publisher.store.tenancy import owned

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

#: seconds of silence after which a comment keeps proxies from closing the connection
KEEP_ALIVE = 15.0
#: events read at once
BATCH = 500
#: how long a browser waits before it connects again, in milliseconds
RECONNECT = 1000

LastEventId = Annotated[
    int | None, Header(alias="Last-Event-ID", ge=0, le=2**62, description="number of the last event received")
]
After = Annotated[int | None, Query(ge=0, le=2**62, description="the same, where headers cannot be set")]


def position(last_event_id: LastEventId = None, after: After = None) -> int:
    """Number of the event after which the stream starts."""
    return last_event_id if last_event_id is not None else after or 0


Position = Annotated[int, Depends(position)]


@dataclass(frozen=True)
class Batch:
    """Events after a number, and whether nothing comes after them."""

    events: list[JobEvent]
    is_last: bool


@router.get(
    "/{id}/events",
    name="follow_job",
    response_class=StreamingResponse,
    responses=documented(401, 404)
    | {200: {"content": {"text/event-stream": {}}}, 204: {"description": "finished, nothing new"}},
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
    ends when the job has finished. To resume, send the last number as `Last-Event-ID`; browsers do by themselves,
    and stop asking at a 204.
    """
    first = read_batch(service.database, caller, id, position)
    if first.is_last and not first.events:
        return Response(status_code=status.HTTP_204_NO_CONTENT)
    watch = cast(JobWatch, request.app.state.watch)
    # X-Accel-Buffering: nginx would collect events into blocks
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    stream = request.app.state.shutdown.until(_stream(service.database, watch, caller, id, position))
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _stream(database: Database, watch: JobWatch, caller: Caller, job_id: str, seq: int) -> AsyncGenerator[bytes]:
    yield f"retry: {RECONNECT}\n\n".encode()
    with watch.listening(job_id):
        while True:
            batch = await to_thread.run_sync(read_batch, database, caller, job_id, seq, limiter=watch.threads)
            if batch.events:
                seq = batch.events[-1].seq
                yield b"".join(_encode(event) for event in batch.events)
            if batch.is_last:
                return
            if not await watch.news(job_id, seq, KEEP_ALIVE):
                yield b": still here\n\n"


def read_batch(database: Database, caller: Caller, job_id: str, seq: int) -> Batch:
    """Events after number `seq`. Raises NotFound for a job that the caller may not see."""
    with database.read() as session:
        job = owned(session, Job, caller.tenant_id, job_id)
        found = events.read_after(session, job_id, seq, BATCH)
    # the job was read first: a retry since then makes more events than it knew of, and the stream goes on
    reached = found[-1].seq if found else job.event_seq
    return Batch(found, is_last=job.state.finished and reached == job.event_seq)


def _encode(event: JobEvent) -> bytes:
    data = to_json({**event.data, "at": event.at}, inf_nan_mode="null")
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.kind.encode(), data)
