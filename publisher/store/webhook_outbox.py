"""What is read and written when something happens that webhooks are told of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from publisher.store.database import clock
from publisher.store.models import Job, Variant, Webhook, WebhookDelivery, WebhookEvent, new_id
from publisher.store.states import DeliveryState

#: of a variant, what events tell: the rest of its row is large
_TOLD = (
    Variant.id,
    Variant.base_model_id,
    Variant.publish_repo_id,
    Variant.publish_private,
    Variant.sweep_id,
    Variant.labels,
    Variant.publication,
)


def enabled(session: Session, tenant_ids: Collection[str]) -> list[Webhook]:
    """The webhooks of these tenants that are not disabled."""
    theirs = select(Webhook).where(Webhook.tenant_id.in_(tenant_ids), Webhook.disabled_at.is_(None))
    return list(session.scalars(theirs.order_by(Webhook.id)))


def variants_of(session: Session, job_ids: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """Job → columns of the variant that it makes, as this transaction leaves them."""
    made = select(Job.id.label("job_id"), *_TOLD).join(Variant, Variant.id == Job.variant_id).where(Job.id.in_(job_ids))
    found: dict[str, Mapping[str, Any]] = {}
    for row in session.execute(made).mappings():
        columns = dict(row)
        found[columns.pop("job_id")] = columns
    return found


def add(
    session: Session, events: Sequence[Mapping[str, Any]], deliveries: Sequence[tuple[str, Mapping[str, Any]]]
) -> list[str]:
    """Write events (columns of WebhookEvent, with ids) and, for each webhook's id and event, a delivery that is due
    now; returns the deliveries' ids."""
    if not events:
        return []
    now = clock(session)
    rows: list[dict[str, Any]] = [
        {
            "id": new_id(WebhookDelivery.id_kind),
            "tenant_id": event["tenant_id"],
            "webhook_id": webhook_id,
            "event_id": event["id"],
            "state": DeliveryState.PENDING,
            "attempts": 0,
            "due_at": now,
            "asked_at": now,
            "created_at": now,
        }
        for webhook_id, event in deliveries
    ]
    session.execute(insert(WebhookEvent), list(events))
    session.execute(insert(WebhookDelivery), rows)
    return [row["id"] for row in rows]
