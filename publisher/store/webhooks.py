"""The life of a webhook: made, changed, its secret replaced, disabled, deleted.

Whoever makes or deletes one takes the tenant's row first, as those do who write down what webhooks are told of
(publisher.jobs.numbering): locks are taken in the order tenant, webhook, delivery.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Select, delete, update
from sqlalchemy.orm import Session, joinedload

from publisher.errors import Conflict, NotFound
from publisher.settings import Settings
from publisher.signing.sealing import Sealer
from publisher.store import webhook_outbox
from publisher.store.audit import record
from publisher.store.database import clock
from publisher.store.models import Tenant, Webhook, WebhookDelivery, WebhookEvent, new_id
from publisher.store.sealed import WEBHOOK_SECRET
from publisher.store.states import DeliveryState
from publisher.store.tenancy import hold, owned, readable_by


def sealer(settings: Settings) -> Sealer:
    """Of webhooks' secrets; each belongs to its webhook's id."""
    return Sealer(settings.sealing_secrets(), WEBHOOK_SECRET)


def add(session: Session, webhook: Webhook, most: int) -> None:
    """Conflict if its tenant has `most` already."""
    counted = (
        update(Tenant)
        .where(Tenant.id == webhook.tenant_id, Tenant.webhooks < most)
        .values(webhooks=Tenant.webhooks + 1)
        .returning(Tenant.webhooks)
        .execution_options(synchronize_session=False)
    )
    if session.scalar(counted) is None:
        raise Conflict(f"there are {most} webhooks already, as many as a tenant may have.", way_out="Delete one first.")
    session.add(webhook)
    session.flush()
    record(session, "webhook.create", webhook.id, tenant_id=webhook.tenant_id, url=webhook.url)


def remove(session: Session, tenant_id: str, id: str) -> None:
    """With its deliveries; what is on its way may still arrive."""
    webhook = owned(session, Webhook, tenant_id, id)
    less = update(Tenant).where(Tenant.id == tenant_id).values(webhooks=Tenant.webhooks - 1)
    session.execute(less.execution_options(synchronize_session=False))
    hold(session, webhook)  # NotFound, and the count as it was, if another request was faster
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.webhook_id == id))
    session.delete(webhook)
    session.flush()
    record(session, "webhook.delete", id, tenant_id=tenant_id)


def held(session: Session, tenant_id: str, id: str) -> Webhook:
    """The tenant's webhook, which nobody else changes or deletes until the transaction ends. NotFound if there is none,
    or it has just been deleted."""
    webhook = owned(session, Webhook, tenant_id, id)
    hold(session, webhook)
    return webhook


def replace_secret(session: Session, webhook: Webhook, sealed: str, seconds: float) -> None:
    """The secret of now signs for `seconds` more, beside the new one."""
    hold(session, webhook)  # of two at once each shows a secret that signs
    webhook.previous_secret, webhook.secret = webhook.secret, sealed
    webhook.previous_until = clock(session) + seconds
    session.flush()
    record(session, "webhook.rotate_secret", webhook.id, tenant_id=webhook.tenant_id)


def note_change(session: Session, webhook: Webhook, fields: Iterable[str]) -> None:
    """Somebody has changed these."""
    record(session, "webhook.change", webhook.id, tenant_id=webhook.tenant_id, fields=sorted(fields))


def enable(session: Session, webhook: Webhook) -> None:
    """What still waits for it is delivered; of what happened meanwhile it is never told."""
    webhook.disabled_at = webhook.disabled_reason = webhook.failing_since = None
    session.flush()


def disable(session: Session, webhook: Webhook, reason: str) -> None:
    if webhook.disabled_at is None:
        webhook.disabled_at, webhook.disabled_reason = clock(session), reason
        session.flush()


def deliveries_of(webhook: Webhook, states: Sequence[DeliveryState]) -> Select[WebhookDelivery]:
    """With their events; only those in one of `states`, if there are any."""
    mine = readable_by(webhook.tenant_id, WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id)
    if states:
        mine = mine.where(WebhookDelivery.state.in_(states))
    return mine.options(joinedload(WebhookDelivery.event))


def delivery_of(session: Session, webhook: Webhook, id: str) -> WebhookDelivery:
    """Locked until the transaction ends. NotFound if it is not one of this webhook's."""
    one = deliveries_of(webhook, ()).where(WebhookDelivery.id == id).with_for_update(of=WebhookDelivery)
    row = session.scalar(one)
    if row is None:
        way_out = f"GET /v1/webhooks/{webhook.id}/deliveries lists them."
        raise NotFound(f"webhook {webhook.id} has no delivery {id}.", way_out=way_out)
    return row


def deliver_again(session: Session, webhook: Webhook, id: str) -> WebhookDelivery:
    """Due now, as new; the message keeps its id. Conflict if the webhook is disabled."""
    refuse_disabled(webhook)
    row = delivery_of(session, webhook, id)
    row.state, row.attempts = DeliveryState.PENDING, 0
    row.due_at = row.asked_at = clock(session)
    row.delivered_at = row.status = row.error = row.seconds = row.tried_at = None
    session.flush()
    record(session, "webhook.redeliver", webhook.id, tenant_id=webhook.tenant_id, related=id)
    return row


def add_event(session: Session, webhook: Webhook, type: str, data: dict[str, Any]) -> WebhookDelivery:
    """An event for this webhook alone. Conflict if it is disabled."""
    refuse_disabled(webhook)
    event: dict[str, Any] = {"id": new_id(WebhookEvent.id_kind), "tenant_id": webhook.tenant_id, "type": type}
    event |= {"at": clock(session), "data": data}
    (id,) = webhook_outbox.add(session, [event], [(webhook.id, event)])
    record(session, "webhook.test", webhook.id, tenant_id=webhook.tenant_id, related=id)
    return delivery_of(session, webhook, id)


def refuse_disabled(webhook: Webhook) -> None:
    if webhook.disabled_at is not None:
        way_out = f'PATCH /v1/webhooks/{webhook.id} {{"enabled": true}} first.'
        raise Conflict(f"webhook {webhook.id} is disabled: {webhook.disabled_reason}", way_out=way_out)
