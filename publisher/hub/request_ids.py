"""Every request has an id: its caller's X-Request-Id or a new one, told in the answer, the log and the audit log."""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from publisher.hub.answer_start import at_start
from publisher.store import origin

HEADER = "X-Request-Id"
#: what a caller may choose: it stands in logs and headers
_CHOSEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


class RequestIds:
    """Goes around everything that logs or writes. The id stays in the context after an error, for whoever tells it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        chosen = Headers(scope=scope).get(HEADER, "")
        request_id = chosen if _CHOSEN.fullmatch(chosen) else f"req_{secrets.token_hex(12)}"
        client = scope.get("client")
        origin.open_request(request_id, client[0] if client else None)

        def add(message: Message) -> None:
            MutableHeaders(scope=message)[HEADER] = request_id

        await self._app(scope, receive, at_start(send, add))
