"""Who is told of events, and what became of it."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from sqlalchemy import JSON, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from publisher.store.models.table import DELIVERY_STATE, Table, list_index, new_id
from publisher.store.states import DeliveryState


class Webhook(Table):
    """Where a tenant's events are sent. `events`: names of publisher.webhooks.register; null: all, those to come too.

    `secret` signs, sealed by publisher.signing.sealing, and `previous_secret` besides until `previous_until`.
    `failing_since`: nothing has been delivered since then, though it was tried. One that is disabled says why.
    """

    __tablename__ = "webhooks"
    __table_args__ = (list_index(),)
    id_kind: ClassVar[str] = "hook"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(Webhook.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    url: Mapped[str] = mapped_column(Text)
    description: Mapped[str]
    events: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    secret: Mapped[str]
    previous_secret: Mapped[str | None]
    previous_until: Mapped[float | None]
    failing_since: Mapped[float | None]
    disabled_at: Mapped[float | None]
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(default=time.time)


class WebhookEvent(Table):
    """What happened, as it is sent: its id is the message's. `type`: a name of publisher.webhooks.register."""

    __tablename__ = "webhook_events"
    __table_args__ = (list_index(),)
    id_kind: ClassVar[str] = "evt"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(WebhookEvent.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    type: Mapped[str] = mapped_column(String(64))
    at: Mapped[float]
    data: Mapped[dict[str, Any]]


_IS_PENDING = text("state = 'pending'")


class WebhookDelivery(Table):
    """One event on its way to one webhook. `state`: publisher.store.states.DeliveryState.

    `due_at`: it is not tried before; who takes it moves that beyond the try's end, so that it is due again should its
    taker die. `attempts` grows with every claim, and what ends a try names it. `asked_at`: when it was made, or asked
    for again; patience is counted from there. The rest is of the last try: `status` of the answer, `error` why it
    failed, `seconds` that it took.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_list", "webhook_id", "id"),
        Index(
            "ix_webhook_deliveries_due",
            "webhook_id",
            "due_at",
            sqlite_where=_IS_PENDING,
            postgresql_where=_IS_PENDING,
        ),
    )
    id_kind: ClassVar[str] = "dlv"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id(WebhookDelivery.id_kind))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id"))
    event_id: Mapped[str] = mapped_column(ForeignKey("webhook_events.id"), index=True)
    state: Mapped[DeliveryState] = mapped_column(DELIVERY_STATE, default=DeliveryState.PENDING)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    due_at: Mapped[float]
    asked_at: Mapped[float]
    tried_at: Mapped[float | None]
    delivered_at: Mapped[float | None]
    status: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(Text)
    seconds: Mapped[float | None]
    created_at: Mapped[float]

    event: Mapped[WebhookEvent] = relationship()
