"""Webhooks and deliveries in a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update

from publisher.settings import Settings
from publisher.store import webhooks
from publisher.store.database import Database
from publisher.store.models import Webhook, WebhookDelivery, WebhookEvent, new_id
from publisher.store.states import DeliveryState
from publisher.webhooks.deliverer import Deliverer
from publisher.webhooks.signature import new_secret
from tests.servers import wait_until

FAST: dict[str, Any] = {
    "webhook_poll_seconds": 0.05,
    "webhook_backoff_seconds": 0.05,
    "webhook_timeout_seconds": 2,
    "allow_private_addresses": True,
    "allow_http_webhooks": True,
}


def fast(folder: Path, **changes: Any) -> Settings:
    """Settings with which receivers on loopback are tried often."""
    return Settings(data_dir=folder, broker_url="filesystem://", **(FAST | changes))


def add_webhook(
    database: Database, settings: Settings, tenant_id: str, url: str, events: list[str] | None = None
) -> tuple[Webhook, str]:
    """With its secret."""
    id, secret = new_id(Webhook.id_kind), new_secret()
    sealed = webhooks.sealer(settings).seal(secret, id)
    row = Webhook(id=id, tenant_id=tenant_id, url=url, events=events, description="", secret=sealed)
    with database.write() as session:
        webhooks.add(session, row, most=1000)
    return row, secret


def add_deliveries(database: Database, webhook: Webhook, count: int = 1) -> list[WebhookDelivery]:
    """Of so many test events, due now."""
    with database.write() as session:
        return [webhooks.add_event(session, webhook, "webhook.test", {"number": number}) for number in range(count)]


def events_of(database: Database, tenant_id: str) -> list[WebhookEvent]:
    """In the order in which they happened."""
    with database.read() as session:
        mine = select(WebhookEvent).where(WebhookEvent.tenant_id == tenant_id)
        return list(session.scalars(mine.order_by(WebhookEvent.id)))


def deliveries_of(database: Database, webhook: Webhook) -> list[WebhookDelivery]:
    with database.read() as session:
        return list(session.scalars(webhooks.deliveries_of(webhook, ()).order_by(WebhookDelivery.id)))


def delivery(database: Database, id: str) -> WebhookDelivery:
    with database.read() as session:
        return session.get_one(WebhookDelivery, id)


def webhook(database: Database, id: str) -> Webhook:
    with database.read() as session:
        return session.get_one(Webhook, id)


def count_in(database: Database, state: DeliveryState) -> int:
    with database.read() as session:
        counted = select(func.count()).select_from(WebhookDelivery).where(WebhookDelivery.state == state)
        return session.scalar(counted) or 0


def settled(database: Database, id: str, state: DeliveryState, seconds: float = 20) -> WebhookDelivery:
    """Wait until the delivery is in that state."""
    wait_until(lambda: delivery(database, id).state is state, f"delivery {id} {state}", seconds)
    return delivery(database, id)


def tried(database: Database, id: str, attempts: int = 1, seconds: float = 20) -> WebhookDelivery:
    """Wait until so many tries of it have ended."""

    def ended() -> bool:
        row = delivery(database, id)
        return row.attempts >= attempts and row.tried_at is not None

    wait_until(ended, f"try {attempts} of delivery {id}", seconds)
    return delivery(database, id)


def let_pass(database: Database, seconds: float) -> None:
    """Move every time of deliveries and webhooks into the past."""
    with database.write() as session:
        # in the order in which a deliverer locks
        for column in (Webhook.failing_since, WebhookDelivery.due_at, WebhookDelivery.asked_at):
            session.execute(update(column.class_).values({column: column - seconds}))


@contextmanager
def delivering(database: Database, settings: Settings) -> Iterator[Deliverer]:
    """A deliverer at work until the block is left."""
    deliverer = Deliverer(database, settings)
    deliverer.start()
    try:
        yield deliverer
    finally:
        deliverer.stop()
