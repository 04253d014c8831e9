"""Webhooks of the tenant: list, make, change, try, and what became of each delivery."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse

from publisher.api import webhooks as calls
from publisher.api.service import CurrentService, Service
from publisher.api.webhooks_schema import DeliveryAnswer, NewWebhookAnswer, WebhookAnswer, WebhookChange, WebhookRequest
from publisher.dashboard.access import Administrator, SendingAdministrator, Visitor
from publisher.dashboard.answers import PageRoute, see_other
from publisher.dashboard.filled import Filled, Line, Ticked, read
from publisher.dashboard.listing import PAGE, Cursor
from publisher.dashboard.settings import settings_page
from publisher.errors import RequestFault
from publisher.store import webhooks as rows
from publisher.store.database import clock
from publisher.store.models import Webhook, WebhookDelivery
from publisher.store.paging import newest_first
from publisher.store.states import DeliveryState
from publisher.store.tenancy import owned, readable_by
from publisher.webhooks.register import EVENT_TYPES

START = "/settings/webhooks"
router = APIRouter(prefix=START, route_class=PageRoute)

#: what a webhook may subscribe to, with words
_EVENTS = [each for each in EVENT_TYPES if each.arises is not None]

#: seconds; a try that is under way ends within them, or is looked for by hand
_SOON = 60

State = Annotated[DeliveryState | None, Query()]


@router.get("")
def list_webhooks(service: CurrentService, visitor: Administrator, cursor: Cursor = None) -> HTMLResponse:
    return _list(service, visitor, Filled(), cursor)


def _list(
    service: Service, visitor: Visitor, form: Filled, cursor: str | None = None, status: int = 200
) -> HTMLResponse:
    with service.database.read() as session:
        found = newest_first(session, readable_by(visitor.tenant_id, Webhook), Webhook, cursor, PAGE)
        return settings_page(
            "webhooks.html",
            service,
            visitor,
            now=clock(session),
            webhooks=[WebhookAnswer.of(row) for row in found.items],
            cursor=cursor,
            next_cursor=found.next_cursor,
            form=form,
            events=_EVENTS,
            most=service.settings.webhooks_per_tenant,
            status=status,
        )


@router.post("")
def make(
    service: CurrentService,
    visitor: SendingAdministrator,
    url: Line = "",
    events: Ticked = [],  # noqa: B006 - FastAPI copies it
    description: Line = "",
) -> HTMLResponse:
    """The answer is the only page where the secret is shown."""
    typed = _typed(url, events, description)
    try:
        made = calls.create_webhook(read(WebhookRequest, _asked(typed)), service, visitor.caller)
    except RequestFault as fault:
        return _list(service, visitor, Filled.refused(typed, fault), status=fault.status)
    return _secret(service, visitor, made, status=201)


def _typed(url: str, events: list[str], description: str) -> dict[str, Any]:
    return {"url": url.strip(), "events": events, "description": description}


def _asked(typed: dict[str, Any]) -> dict[str, Any]:
    """None ticked: all, those of later versions too."""
    return typed | {"events": typed["events"] or None}


def _secret(service: Service, visitor: Visitor, made: NewWebhookAnswer, status: int = 200) -> HTMLResponse:
    return settings_page("secret.html", service, visitor, tab=START, made=made, secret=made.secret, status=status)


@router.get("/{id}")
def webhook(
    id: str, service: CurrentService, visitor: Administrator, cursor: Cursor = None, state: State = None
) -> HTMLResponse:
    return _one(id, service, visitor, cursor=cursor, state=state)


def _one(
    id: str,
    service: Service,
    visitor: Visitor,
    form: Filled | None = None,
    *,
    cursor: str | None = None,
    state: DeliveryState | None = None,
    status: int = 200,
) -> HTMLResponse:
    """`form`: None where it says what is so now."""
    with service.database.read() as session:
        now, row = clock(session), owned(session, Webhook, visitor.tenant_id, id)
        sent = rows.deliveries_of(row, [] if state is None else [state])
        found = newest_first(session, sent, WebhookDelivery, cursor, PAGE)
        return settings_page(
            "webhook.html",
            service,
            visitor,
            now=now,
            webhook=WebhookAnswer.of(row),
            deliveries=[DeliveryAnswer.of(each) for each in found.items],
            due=any(each.state is DeliveryState.PENDING and each.due_at <= now + _SOON for each in found.items),
            state=state,
            states=list(DeliveryState),
            cursor=cursor,
            next_cursor=found.next_cursor,
            form=form or Filled(_typed(row.url, row.events or [], row.description)),
            events=_EVENTS,
            overlap=service.settings.webhook_secret_overlap_hours * 3600,
            status=status,
        )


@router.post("/{id}")
def change(
    id: str,
    service: CurrentService,
    visitor: SendingAdministrator,
    *,
    url: Line = "",
    events: Ticked = [],  # noqa: B006 - FastAPI copies it
    description: Line = "",
) -> Response:
    typed, now = _typed(url, events, description), calls.get_webhook(id, service, visitor.caller)
    # the audit log names what was changed
    changed = {name: value for name, value in _asked(typed).items() if value != getattr(now, name)}
    try:
        if changed:
            calls.change_webhook(id, read(WebhookChange, changed), service, visitor.caller)
    except RequestFault as fault:
        return _one(id, service, visitor, Filled.refused(typed, fault), status=fault.status)
    return see_other(f"{START}/{id}")


@router.post("/{id}/enable")
def enable(id: str, service: CurrentService, visitor: SendingAdministrator) -> Response:
    calls.change_webhook(id, WebhookChange(enabled=True), service, visitor.caller)
    return see_other(f"{START}/{id}")


@router.post("/{id}/disable")
def disable(id: str, service: CurrentService, visitor: SendingAdministrator) -> Response:
    calls.change_webhook(id, WebhookChange(enabled=False), service, visitor.caller)
    return see_other(f"{START}/{id}")


@router.post("/{id}/test")
def send_test(id: str, service: CurrentService, visitor: SendingAdministrator) -> Response:
    calls.test_webhook(id, service, visitor.caller)
    return see_other(f"{START}/{id}")


@router.post("/{id}/rotate-secret")
def rotate_secret(id: str, service: CurrentService, visitor: SendingAdministrator) -> HTMLResponse:
    return _secret(service, visitor, calls.rotate_webhook_secret(id, service, visitor.caller))


@router.post("/{id}/delete")
def delete(id: str, service: CurrentService, visitor: SendingAdministrator) -> Response:
    calls.delete_webhook(id, service, visitor.caller)
    return see_other(START)


@router.post("/{id}/deliveries/{delivery}/redeliver")
def redeliver(id: str, delivery: str, service: CurrentService, visitor: SendingAdministrator) -> Response:
    calls.redeliver_webhook_event(id, delivery, service, visitor.caller)
    return see_other(f"{START}/{id}")
