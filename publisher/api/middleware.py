"""What holds for every request: a bound on JSON bodies, and headers that keep browsers careful."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from publisher.api.errors import problem
from publisher.errors import RequestFault
from publisher.hub.answer_start import at_start

#: a recipe has a few hundred; the Hub's uploads have limits of their own
MAX_BODY_BYTES = 1_000_000

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}


class BodyTooLarge(RequestFault):
    status = 413
    slug = "body-too-large"
    title = "Body too large"


class AnnouncedBodies:
    """Refuses what says that it is too large. The routers' `max_body_size` would, too, but in plain text; it is
    there for bodies that do not say."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/") and _announced(scope) > MAX_BODY_BYTES:
            fault = BodyTooLarge(f"the body has {_announced(scope)} bytes; at most {MAX_BODY_BYTES} are read.")
            await problem(scope["path"], fault)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _announced(scope: Scope) -> int:
    length = Headers(scope=scope).get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


class CarefulHeaders:
    """Adds security headers where an answer does not bring its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        def add(message: Message) -> None:
            _add_headers(MutableHeaders(scope=message), scope["path"])

        await self._app(scope, receive, at_start(send, add))


def _add_headers(headers: MutableHeaders, path: str) -> None:
    if path.startswith("/v1/"):
        headers.setdefault("Cache-Control", "no-store")
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
