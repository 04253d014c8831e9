"""Webhooks in requests and answers."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from publisher.api.one_line import LETTER
from publisher.store import models as tables
from publisher.store.states import DeliveryState
from publisher.webhooks.addresses import MOST_LETTERS
from publisher.webhooks.register import SUBSCRIBABLE

_Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MOST_LETTERS,
        pattern=r"^https?://[!-~]+$",
        description="where events are sent: https, at an address that everybody can reach",
    ),
]
_EventName = Annotated[str, Field(json_schema_extra={"enum": list(SUBSCRIBABLE)})]
_Events = Annotated[list[_EventName], Field(min_length=1, max_length=100)]
_ALL_IF_NULL = "those that are sent; null: all, those of later versions too"
_Description = Annotated[
    str, Field(max_length=200, pattern=rf"^{LETTER}*$", description="to tell webhooks apart, one line")
]


class WebhookRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"url": "https://ci.example.com/loram", "events": ["job.failed", "variant.published"]}]
        },
    )

    url: _Url
    events: _Events | None = Field(default=None, description=_ALL_IF_NULL)
    description: _Description = ""


class WebhookChange(BaseModel):
    """What is named is changed, the rest stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"enabled": True}]})

    url: _Url = ""
    events: _Events | None = Field(default=None, description=_ALL_IF_NULL)
    description: _Description = ""
    enabled: bool = Field(default=True, description="false: nothing is sent; true: what still waits is sent")


class WebhookAnswer(BaseModel):
    id: str = Field(description="names the webhook in other calls")
    url: str = Field(description="where events are sent")
    events: list[str] | None = Field(description="those that are sent; null: all")
    description: str = Field(description="to tell webhooks apart")
    enabled: bool = Field(description="false: nothing is sent, and nothing is kept to be sent later")
    disabled_at: float | None = Field(description="seconds since 1970; null: it is enabled")
    disabled_reason: str | None = Field(description="who or what disabled it")
    failing_since: float | None = Field(description="seconds since 1970: nothing could be delivered since then")
    previous_secret_until: float | None = Field(
        description="seconds since 1970: the secret of before signs until then, too"
    )
    created_at: float = Field(description="seconds since 1970")

    @classmethod
    def of(cls, row: tables.Webhook) -> Self:
        return cls(**cls._fields(row))

    @staticmethod
    def _fields(row: tables.Webhook) -> dict[str, Any]:
        same = ("id", "url", "events", "description", "disabled_at", "disabled_reason", "failing_since", "created_at")
        fields = {name: getattr(row, name) for name in same}
        return fields | {"enabled": row.disabled_at is None, "previous_secret_until": row.previous_until}


class NewWebhookAnswer(WebhookAnswer):
    secret: str = Field(description="whsec_…, for the receiver to check signatures with; shown this once")

    @classmethod
    def with_secret(cls, row: tables.Webhook, secret: str) -> Self:
        return cls(**cls._fields(row), secret=secret)


class DeliveryAnswer(BaseModel):
    """One event on its way to one webhook. Times are seconds since 1970."""

    id: str = Field(description="names the delivery")
    event_id: str = Field(description="the message's webhook-id, the same at every try")
    type: str = Field(description="of the event")
    data: dict[str, Any] = Field(description="what is told of it")
    at: float = Field(description="seconds since 1970: when it happened")
    state: DeliveryState = Field(description="failed: given up")
    attempts: int = Field(description="tries so far, since somebody asked last")
    next_attempt_at: float | None = Field(description="seconds since 1970; null: there is none")
    last_attempt_at: float | None = Field(description="seconds since 1970")
    delivered_at: float | None = Field(description="seconds since 1970")
    status: int | None = Field(description="of the last answer; null: there was none")
    error: str | None = Field(description="why the last try failed")
    seconds: float | None = Field(description="that the last try took")

    @classmethod
    def of(cls, row: tables.WebhookDelivery) -> Self:
        return cls(
            id=row.id,
            event_id=row.event_id,
            type=row.event.type,
            data=row.event.data,
            at=row.event.at,
            state=row.state,
            attempts=row.attempts,
            next_attempt_at=row.due_at if row.state is DeliveryState.PENDING else None,
            last_attempt_at=row.tried_at,
            delivered_at=row.delivered_at,
            status=row.status,
            error=row.error,
            seconds=row.seconds,
        )
