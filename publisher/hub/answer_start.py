"""The start of an answer, for middlewares that add headers to it or note its status."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Message, Send


def at_start(send: Send, tell: Callable[[Message], None]) -> Send:
    """`send`, but that `tell` sees the message with status and headers first, and may change it."""

    async def send_told(message: Message) -> None:
        if message["type"] == "http.response.start":
            tell(message)
        await send(message)

    return send_told
