"""How webhooks are told of events."""

from __future__ import annotations

from pydantic import BaseModel, Field


class WebhookSettings(BaseModel):
    """Webhooks"""

    allow_http_webhooks: bool = Field(default=False, description="webhooks may be plain http, too")
    webhooks_per_tenant: int = Field(default=20, ge=0, description="more are refused; 0: there are none")
    webhook_timeout_seconds: float = Field(
        default=15, gt=0, le=300, description="a receiver that has not answered by then is tried again"
    )
    webhook_concurrency: int = Field(default=200, ge=1, description="deliveries that one API process sends at once")
    webhook_concurrency_per_webhook: int = Field(default=4, ge=1, description="of these, to one webhook at most")
    webhook_poll_seconds: float = Field(default=1, gt=0, description="how often new deliveries are looked for")
    webhook_backoff_seconds: float = Field(
        default=5, ge=0, description="before a delivery's second try; doubles each time, up to 6 hours"
    )
    webhook_give_up_days: float = Field(default=3, gt=0, description="a delivery that still fails then is given up")
    webhook_disable_days: float = Field(
        default=5, gt=0, description="a webhook that got nothing for so long is disabled when a delivery is given up"
    )
    webhook_history_days: float = Field(default=30, gt=0, description="deliveries are shown for so long")
    webhook_secret_overlap_hours: float = Field(
        default=24, ge=0, description="a webhook's secret signs for so long after it was replaced"
    )
