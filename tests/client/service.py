"""A service that answers what a test has written down, over a real connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from tests.servers import serve


@dataclass(frozen=True)
class Stream:
    """Events (id, kind, data) of a job, and then the end of the stream; or, `broken`, of the connection."""

    events: tuple[tuple[int, str, dict[str, Any]], ...] = ()
    broken: bool = False

    def lines(self) -> Iterator[bytes]:
        yield b": here\n\n"
        for id, kind, data in self.events:
            yield f"id: {id}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()
        if self.broken:
            raise ConnectionError("as written down")


@dataclass
class Scripted:
    """`answers` are given one after another, the last one again and again; `asked`: method, path, headers, body."""

    url: str = ""
    answers: list[Stream | Response] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    def last_event_ids(self) -> list[str]:
        return [headers["last-event-id"] for _, _, headers, _ in self.asked]


@contextmanager
def scripted_service() -> Iterator[Scripted]:
    service, app = Scripted(), FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def answer(path: str, request: Request) -> Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        service.asked.append((request.method, f"/{path}?{request.url.query}", headers, await request.body()))
        given = service.answers.pop(0) if len(service.answers) > 1 else service.answers[0]
        if isinstance(given, Response):
            return Response(given.body, given.status_code, media_type=given.media_type)
        return StreamingResponse(given.lines(), media_type="text/event-stream")

    with serve(app) as port:
        service.url = f"http://127.0.0.1:{port}"
        yield service
