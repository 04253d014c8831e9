"""What a server logs of an application that refuses to start: its sentence, and not the frames that it came through."""

from __future__ import annotations

import sys

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from publisher.errors import PublisherError


class RefusalsInASentence:
    """The middleware through which an application's lifespan tells the server that it failed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def tell(message: Message) -> None:
            # Starlette sends this while it handles the exception
            if message["type"] == "lifespan.startup.failed" and isinstance(fault := sys.exception(), PublisherError):
                message = {**message, "message": f"Error: {fault}"}
            await send(message)

        await self._app(scope, receive, tell)
