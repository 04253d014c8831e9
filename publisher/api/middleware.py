"""What holds for every request: a bound on JSON bodies, and headers that keep browsers careful."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from publisher.api.errors import problem
from publisher.errors import RequestFault

#: bytes; a recipe has a few hundred
MAX_BODY = 1_000_000

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}
#: the interactive documentation starts with an inline script and takes its viewer from a CDN
_DOCUMENTATION_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; img-src 'self' data: https://fastapi.tiangolo.com"
)


class BodyTooLarge(RequestFault):
    status = 413
    slug = "body-too-large"
    title = "Body too large"


class BoundedBodies:
    """Reads bodies under `prefix` whole, MAX_BODY bytes at most, before anything is done with them."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        body = await _read(receive) if _announced(scope) <= MAX_BODY else None
        if body is None:
            fault = BodyTooLarge(f"The body is larger than {MAX_BODY} bytes.")
            await problem(scope["path"], fault)(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)


def _announced(scope: Scope) -> int:
    length = Headers(scope=scope).get("content-length", "0")
    return int(length) if length.isdigit() else 0


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None if it is too large. A client that goes away leaves what it sent."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body as one message, then whatever comes next (the client goes away)."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message


class CarefulHeaders:
    """Adds security headers where an answer does not bring its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(MutableHeaders(scope=message), scope["path"])
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _add_headers(headers: MutableHeaders, path: str) -> None:
    if path in {"/docs", "/redoc"}:
        headers.setdefault("Content-Security-Policy", _DOCUMENTATION_POLICY)
    if path.startswith("/v1/"):
        headers.setdefault("Cache-Control", "no-store")
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
