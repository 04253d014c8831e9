"""What streams of Server-Sent Events (WHATWG HTML, section 9.2) have in common: where they start, and their answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, cast

from fastapi import Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from publisher.api.authentication import Caller
from publisher.api.event_sources import Source
from publisher.api.fan_out import FanOut, Wanted, everything
from publisher.api.shutdown import Shutdown

LastEventId = Annotated[
    int | None, Header(alias="Last-Event-ID", ge=0, le=2**62, description="number of the last event received")
]
After = Annotated[int | None, Query(ge=0, le=2**62, description="the same, where headers cannot be set")]


def position(last_event_id: LastEventId = None, after: After = None) -> int | None:
    """Number of the event after which the stream starts; None if the caller does not say."""
    return last_event_id if last_event_id is not None else after


Position = Annotated[int | None, Depends(position)]

#: `responses=` of an endpoint that streams
STREAMS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}


class EventStream(StreamingResponse):
    """Lets go of its listener as soon as nobody reads: a generator does not learn that it is cut off between chunks."""

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        # X-Accel-Buffering: nginx would collect events into blocks
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)


def stream(
    request: Request, caller: Caller, source: Source, id: str, number: int, *, wanted: Wanted = everything
) -> EventStream:
    """The `wanted` events of a feed, which the caller may see, after `number`. Raises TooManyAtOnce."""
    fan_out = cast(FanOut, request.app.state.fan_out)
    fan_out.refuse_crowd(caller.tenant_id)
    shutdown = cast(Shutdown, request.app.state.shutdown)
    return EventStream(shutdown.until(fan_out.follow(caller, source, id, number, wanted)))
