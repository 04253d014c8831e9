"""Webhooks of the caller's tenant, and what became of what was sent to them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status
from sqlalchemy.orm import Session

from publisher.api.authentication import Caller, CurrentCaller
from publisher.api.errors import documented
from publisher.api.paging import Page, RequestedPage
from publisher.api.service import CurrentService, Service
from publisher.api.webhooks_schema import (
    DeliveryAnswer,
    NewWebhookAnswer,
    WebhookAnswer,
    WebhookChange,
    WebhookRequest,
)
from publisher.store import webhooks
from publisher.store.models import Webhook, WebhookDelivery, new_id
from publisher.store.paging import newest_first
from publisher.store.states import DeliveryState
from publisher.store.tenancy import owned, readable_by
from publisher.webhooks.addresses import check_url
from publisher.webhooks.register import subscribed
from publisher.webhooks.signature import new_secret
from publisher.webhooks.trial_event import WEBHOOK_TEST, TrialData

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

_BY_HAND = "somebody disabled it."


@router.post("", status_code=status.HTTP_201_CREATED, responses=documented(401, 409, 422))
def create_webhook(request: WebhookRequest, service: CurrentService, caller: CurrentCaller) -> NewWebhookAnswer:
    """Have events sent to a URL, signed as Standard Webhooks says. The secret is shown in this answer alone."""
    url, id = check_url(request.url, service.settings), new_id(Webhook.id_kind)
    events = None if request.events is None else subscribed(request.events)
    secret, sealed = _new_secret(service, id)
    row = Webhook(
        id=id, tenant_id=caller.tenant_id, url=url, events=events, description=request.description, secret=sealed
    )
    with service.database.write() as session:
        webhooks.add(session, row, service.settings.webhooks_per_tenant)
        return NewWebhookAnswer.with_secret(row, secret)


@router.get("", responses=documented(401))
def list_webhooks(service: CurrentService, caller: CurrentCaller, page: RequestedPage) -> Page[WebhookAnswer]:
    """List webhooks."""
    with service.database.read() as session:
        rows = newest_first(session, readable_by(caller.tenant_id, Webhook), Webhook, page.cursor, page.limit)
    return Page(items=[WebhookAnswer.of(row) for row in rows.items], next_cursor=rows.next_cursor)


@router.get("/{id}", responses=documented(401, 404))
def get_webhook(id: str, service: CurrentService, caller: CurrentCaller) -> WebhookAnswer:
    """Get a webhook."""
    with service.database.read() as session:
        return WebhookAnswer.of(_mine(session, caller, id))


@router.patch("/{id}", responses=documented(401, 404, 422))
def change_webhook(id: str, change: WebhookChange, service: CurrentService, caller: CurrentCaller) -> WebhookAnswer:
    """Change a webhook's URL, events or description, disable it, or enable it again."""
    named = change.model_fields_set
    url = check_url(change.url, service.settings) if "url" in named else None
    events = None if change.events is None else subscribed(change.events)
    with service.database.write() as session:
        row = webhooks.held(session, caller.tenant_id, id)
        row.url = url or row.url
        row.events = events if "events" in named else row.events
        row.description = change.description if "description" in named else row.description
        if "enabled" in named and change.enabled:
            webhooks.enable(session, row)
        elif "enabled" in named:
            webhooks.disable(session, row, _BY_HAND)
        webhooks.note_change(session, row, named)
        return WebhookAnswer.of(row)


@router.delete("/{id}", status_code=status.HTTP_204_NO_CONTENT, responses=documented(401, 404))
def delete_webhook(id: str, service: CurrentService, caller: CurrentCaller) -> None:
    """Forget a webhook and its deliveries. What is on its way may still arrive."""
    with service.database.write() as session:
        webhooks.remove(session, caller.tenant_id, id)


@router.post("/{id}/rotate-secret", responses=documented(401, 404))
def rotate_webhook_secret(id: str, service: CurrentService, caller: CurrentCaller) -> NewWebhookAnswer:
    """Replace a webhook's secret. For a while (a day, unless the operator says otherwise) messages carry a signature by
    the one of before as well."""
    secret, sealed = _new_secret(service, id)
    overlap = 3600 * service.settings.webhook_secret_overlap_hours
    with service.database.write() as session:
        row = _mine(session, caller, id)
        webhooks.replace_secret(session, row, sealed, overlap)
        return NewWebhookAnswer.with_secret(row, secret)


@router.post("/{id}/test", status_code=status.HTTP_202_ACCEPTED, responses=documented(401, 404, 409))
def test_webhook(id: str, service: CurrentService, caller: CurrentCaller) -> DeliveryAnswer:
    """Send a `webhook.test` event to this webhook, whatever it has subscribed to. What became of it is among its
    deliveries within a second or two."""
    data = TrialData(webhook_id=id).model_dump(mode="json")
    with service.database.write() as session:
        row = webhooks.held(session, caller.tenant_id, id)
        return DeliveryAnswer.of(webhooks.add_event(session, row, WEBHOOK_TEST.name, data))


@router.get("/{id}/deliveries", responses=documented(401, 404))
def list_webhook_deliveries(
    id: str,
    service: CurrentService,
    caller: CurrentCaller,
    page: RequestedPage,
    state: Annotated[list[DeliveryState] | None, Query(description="only these states; may be repeated")] = None,
) -> Page[DeliveryAnswer]:
    """List what was sent, or is to be sent, to a webhook, and what became of the last try."""
    with service.database.read() as session:
        mine = webhooks.deliveries_of(_mine(session, caller, id), state or ())
        rows = newest_first(session, mine, WebhookDelivery, page.cursor, page.limit)
        return Page(items=[DeliveryAnswer.of(row) for row in rows.items], next_cursor=rows.next_cursor)


@router.post(
    "/{id}/deliveries/{delivery}/redeliver", status_code=status.HTTP_202_ACCEPTED, responses=documented(401, 404, 409)
)
def redeliver_webhook_event(id: str, delivery: str, service: CurrentService, caller: CurrentCaller) -> DeliveryAnswer:
    """Send it again, whatever became of it, under the same webhook-id."""
    with service.database.write() as session:
        return DeliveryAnswer.of(webhooks.deliver_again(session, _mine(session, caller, id), delivery))


def _mine(session: Session, caller: Caller, id: str) -> Webhook:
    return owned(session, Webhook, caller.tenant_id, id)


def _new_secret(service: Service, id: str) -> tuple[str, str]:
    """As it is shown, and as it is kept."""
    secret = new_secret()
    return secret, webhooks.sealer(service.settings).seal(secret, id)
