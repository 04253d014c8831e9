"""What receivers of webhooks are sent, in the OpenAPI document: of every type of event in the register."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, status
from pydantic import BaseModel, Field, create_model

from publisher.webhooks.event_type import EventType
from publisher.webhooks.register import EVENT_TYPES


def describe_messages(app: FastAPI) -> None:
    """Nothing is served: FastAPI keeps these apart from its own routes."""
    for each in EVENT_TYPES:
        app.webhooks.add_api_route(
            each.name,
            _receiver(_message(each)),
            methods=["POST"],
            operation_id=each.name.replace(".", "_"),
            description=each.words,
            tags=["webhooks"],
            status_code=status.HTTP_204_NO_CONTENT,
            response_description="Any 2xx says that it has arrived; whatever else does not, and it is sent again.",
        )


@cache
def _message(event: EventType) -> type[BaseModel]:
    title = "".join(word.capitalize() for word in event.name.split("."))
    fields: dict[str, Any] = {
        "type": (Literal[event.name], Field(description="which event it is")),
        "timestamp": (datetime, Field(description="when it happened")),
        "data": (event.data, Field(description="what happened")),
    }
    return create_model(f"{title}Message", **fields)


def _receiver(message: type[BaseModel]) -> Callable[..., None]:
    def receive(
        body: BaseModel,
        id: Annotated[str, Header(alias="webhook-id", description="the same at every try: who has seen it has it")],
        timestamp: Annotated[int, Header(alias="webhook-timestamp", description="of this try, seconds since 1970")],
        signature: Annotated[str, Header(alias="webhook-signature", description="see Standard Webhooks")],
    ) -> None:
        """Never called: the receivers are others'."""

    receive.__annotations__["body"] = message
    return receive
