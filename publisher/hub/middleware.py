"""What happens to a request before it is routed."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send


class EncodedSegments:
    """Gives the router a path in which only slashes inside segments, and per cent signs, are encoded.

    Clients ask for branch `feature/x` as `feature%2Fx`. ASGI servers decode the path before routing, so the two
    would look the same.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inner = scope
        if scope["type"] == "http":
            raw_path: bytes | None = scope.get("raw_path")
            encoded = quote(scope["path"]) if raw_path is None else raw_path.decode("ascii", "replace")
            # In a copy: the server logs the path of its own scope.
            inner = {**scope, "path": "/".join(_keep_slashes(segment) for segment in encoded.split("/"))}
        try:
            await self._app(inner, receive, send)
        finally:
            _tell_route(scope, inner)


def _keep_slashes(segment: str) -> str:
    plain = unquote_to_bytes(segment).decode("utf-8", "replace")
    return plain.replace("%", "%25").replace("/", "%2F")


class UnloggedSignatures:
    """Hides the query of upload links from the access log: whoever holds the link may upload.

    The server prints the query of its own scope when the answer starts; the application works with a copy.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inner = scope
        if scope["type"] == "http" and b"signature=" in scope["query_string"]:
            inner = {**scope}
            scope["query_string"] = b"signature=hidden"
        try:
            await self._app(inner, receive, send)
        finally:
            _tell_route(scope, inner)


def _tell_route(scope: Scope, inner: Scope) -> None:
    """What was found for the copy is what those around know the request by, in logs and metrics."""
    scope.update(
        {name: inner[name] for name in ("route", "path_params", "root_path", "app_root_path") if name in inner}
    )
