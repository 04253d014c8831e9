"""How the dashboard answers: pages from templates, errors as pages; nothing is cached.

The strict headers come from publisher.api.middleware: everything from here, nothing inline, no frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlencode, urlsplit

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined

from publisher.dashboard import asset_files, presentation
from publisher.dashboard.access import SignedOut, Visitor, visitor_of
from publisher.dashboard.navigation import sections
from publisher.dashboard.packing import pack
from publisher.errors import NotFound, PublisherError

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_templates = Environment(
    loader=PackageLoader("publisher.dashboard", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= presentation.FILTERS
_templates.globals |= {"asset": asset_files.address, "sections": sections}


class PageRoute(APIRoute):
    """Errors become pages, and no answer is cached unless it says so itself."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            response = await _answer(handle, request)
            # a tenant's data: nothing stays behind in a shared cache or, after signing out, in the browser
            response.headers.setdefault("Cache-Control", "no-store")
            return pack(request, response)

        return answer


async def _answer(handle: Handler, request: Request) -> Response:
    try:
        return await handle(request)
    except SignedOut as fault:
        return _send_to_sign_in(request, fault)
    except RequestValidationError:
        # an address or a form that no page of ours makes
        return error_page(request, NotFound("There is no such page."))
    except PublisherError as fault:
        return error_page(request, fault)


def page(
    template: str, *, visitor: Visitor | None = None, status: int = 200, now: float | None = None, **content: Any
) -> HTMLResponse:
    """A page of `templates/`; `now` in seconds since 1970, by the clock that the page's times are from."""
    text = _templates.get_template(template).render(visitor=visitor, now=time.time() if now is None else now, **content)
    return HTMLResponse(text, status_code=status)


def error_page(request: Request, fault: PublisherError) -> HTMLResponse:
    return page("error.html", visitor=visitor_of(request), status=fault.status, fault=fault)


def _send_to_sign_in(request: Request, fault: SignedOut) -> Response:
    if request.method != "GET":
        return see_other(_login_from(request))
    if "text/event-stream" in request.headers.get("accept", ""):
        # an event source would follow a redirect and choke on the page
        return PlainTextResponse(str(fault), status_code=fault.status)
    if request.headers.get("sec-fetch-site") == "cross-site":
        # the browser keeps a strict cookie from links on other sites: coming again from here brings it along
        return page("arrived.html")
    query = f"?{request.url.query}" if request.url.query else ""
    return see_other(f"/login?{urlencode({'next': request.url.path + query})}")


def _login_from(request: Request) -> str:
    """The sign-in page, with the way back to the page of ours that the form stood on."""
    try:
        came_from = urlsplit(request.headers.get("referer", ""))
    except ValueError:
        return "/login"
    is_ours = came_from.netloc == request.url.netloc and came_from.path.startswith("/")
    return f"/login?{urlencode({'next': came_from.path})}" if is_ours else "/login"


def see_other(address: str) -> RedirectResponse:
    """303: the browser gets `address`."""
    return RedirectResponse(address, status_code=303)
