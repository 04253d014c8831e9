"""API keys of the tenant: list, make, revoke."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from publisher.api import api_keys as calls
from publisher.api.api_keys_schema import ApiKeyRequest
from publisher.api.service import CurrentService, Service
from publisher.dashboard.access import Administrator, SendingAdministrator, Visitor
from publisher.dashboard.answers import PageRoute, see_other
from publisher.dashboard.filled import Filled, Line, Ticked, day, read
from publisher.dashboard.listing import PAGE, Cursor
from publisher.dashboard.settings import settings_page
from publisher.errors import RequestFault
from publisher.keys.scopes import ALL, SCOPES
from publisher.store import keys
from publisher.store.actors import names_of
from publisher.store.database import clock
from publisher.store.models import ApiKey
from publisher.store.paging import newest_first
from publisher.store.tenancy import readable_by

START = "/settings/keys"
router = APIRouter(prefix=START, route_class=PageRoute)


@dataclass(frozen=True)
class Entry:
    """A line of the list. `state` in a word; `maker`: who made it, in words; `revocable`: by who looks."""

    key: ApiKey
    state: str
    maker: str
    revocable: bool


@router.get("")
def list_keys(service: CurrentService, visitor: Administrator, cursor: Cursor = None) -> HTMLResponse:
    return _page(service, visitor, Filled(), cursor)


def _page(
    service: Service, visitor: Visitor, form: Filled, cursor: str | None = None, status: int = 200
) -> HTMLResponse:
    with service.database.read() as session:
        rows = newest_first(session, readable_by(visitor.tenant_id, ApiKey), ApiKey, cursor, PAGE)
        makers = names_of(session, visitor.tenant_id, [key.created_by for key in rows.items])
        now = clock(session)
        return settings_page(
            "keys.html",
            service,
            visitor,
            now=now,
            keys=[_entry(session, visitor, key, makers, now) for key in rows.items],
            cursor=cursor,
            next_cursor=rows.next_cursor,
            form=form,
            every=ALL,
            scopes=[each for each in SCOPES if each.scope in visitor.caller.rights],
            ends=keys.end_of(session, visitor.tenant_id, visitor.caller.key_id),
            status=status,
        )


def _entry(session: Session, visitor: Visitor, key: ApiKey, makers: dict[str, str], now: float) -> Entry:
    state = "revoked" if key.revoked_at else "expired" if key.expires_at and key.expires_at <= now else "works"
    maker = "the operator" if key.created_by is None else makers.get(key.created_by, key.created_by)
    may = state == "works" and keys.may_revoke(session, visitor.caller.key_id, key)
    return Entry(key, state, maker, may)


@router.post("")
def make(
    service: CurrentService,
    visitor: SendingAdministrator,
    name: Line = "",
    scopes: Ticked = [],  # noqa: B006 - FastAPI copies it
    expires_at: Line = "",
) -> HTMLResponse:
    """The answer is the only page where the key is shown."""
    typed = {"name": name, "scopes": scopes, "expires_at": expires_at}
    try:
        made = calls.create_api_key(_request(name, scopes, expires_at), service, visitor.caller)
    except RequestFault as fault:
        return _page(service, visitor, Filled.refused(typed, fault), status=fault.status)
    return settings_page("secret.html", service, visitor, tab=START, made=made, secret=made.key, status=201)


def _request(name: str, scopes: list[str], expires_at: str) -> ApiKeyRequest:
    if not scopes:
        raise RequestFault("tick at least one.", field="scopes")
    return read(ApiKeyRequest, {"name": name, "scopes": scopes, "expires_at": day(expires_at, "expires_at")})


@router.post("/{id}/revoke")
def revoke(id: str, service: CurrentService, visitor: SendingAdministrator) -> Response:
    calls.revoke_api_key(id, service, visitor.caller)
    return see_other(START)
