"""The event that somebody asks for, to see whether a webhook's receiver works."""

from __future__ import annotations

from pydantic import BaseModel, Field

from publisher.webhooks.event_type import EventType


class TrialData(BaseModel):
    webhook_id: str = Field(description="the webhook that is tried")


WEBHOOK_TEST = EventType(
    "webhook.test", "Somebody tries a webhook: POST /v1/webhooks/{id}/test.", TrialData, arises=None
)
