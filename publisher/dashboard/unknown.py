"""What goes wrong outside of any page, as a page for whoever looks with a browser: unknown addresses, bugs, a silent
database. Programs get problem details."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import cast

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from publisher.dashboard.access import visitor_of
from publisher.dashboard.answers import page
from publisher.errors import PublisherError

Handler = Callable[[Request, Exception], Response | Awaitable[Response]]

#: what programs call
_OF_PROGRAMS = ("/v1", "/hub", "/metrics", "/healthz", "/readyz", "/openapi.json")


class Told(PublisherError):
    """A problem that somebody else has found words for."""

    def __init__(self, status: int, title: str, message: str) -> None:
        super().__init__(message)
        self.status, self.title = status, title


def add_pages(app: FastAPI) -> None:
    """Of every handler of errors that `app` has by now."""
    for kind, handle in list(app.exception_handlers.items()):
        app.add_exception_handler(kind, _as_page(cast(Handler, handle)))


def _as_page(handle: Handler) -> Handler:
    async def answer(request: Request, error: Exception) -> Response:
        if inspect.iscoroutinefunction(handle):
            response = await handle(request, error)
        else:
            response = cast(Response, await run_in_threadpool(handle, request, error))
        return _page(request, response) if _is_looking(request) else response

    return answer


def _is_looking(request: Request) -> bool:
    path = request.url.path
    of_programs = any(path == each or path.startswith(f"{each}/") for each in _OF_PROGRAMS)
    return not of_programs and "text/html" in request.headers.get("accept", "")


def _page(request: Request, response: Response) -> Response:
    said = json.loads(bytes(response.body))
    message = "There is no such page." if response.status_code == HTTPStatus.NOT_FOUND else said["detail"]
    fault = Told(response.status_code, said["title"], message)
    shown = page("error.html", visitor=visitor_of(request), status=response.status_code, fault=fault)
    for name in ("retry-after", "allow", "x-request-id"):
        if name in response.headers:
            shown.headers[name] = response.headers[name]
    shown.headers["Cache-Control"] = "no-store"
    return shown
