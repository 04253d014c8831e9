"""The page of the audit log: who did what, when, from where, to which thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from publisher.api.service import CurrentService, Service
from publisher.dashboard.access import Administrator, Visitor
from publisher.dashboard.answers import PageRoute
from publisher.dashboard.filled import Filled, minute
from publisher.dashboard.listing import PAGE, Cursor
from publisher.dashboard.settings import settings_page
from publisher.errors import RequestFault
from publisher.store import audit as log
from publisher.store.actors import names_of
from publisher.store.audit import AuditFilters
from publisher.store.database import clock
from publisher.store.models import AuditEntry
from publisher.store.paging import newest_first

START = "/settings/audit"
router = APIRouter(prefix=START, route_class=PageRoute)

Asked = Annotated[str, Query(max_length=200)]

#: what is done something to, as actions begin: suggestions, since any beginning of an action will do
KINDS = (
    *("base_model", "corpus", "variant", "sweep", "job", "key", "session", "hub", "hub.reference", "hub_credential"),
    *("webhook", "member", "namespace", "quota", "tenant"),
)


@dataclass(frozen=True)
class Line:
    """`who`: their name, if it is known."""

    entry: AuditEntry
    who: str | None


@router.get("")
def audit(
    service: CurrentService,
    visitor: Administrator,
    *,
    action: Asked = "",
    key_id: Asked = "",
    resource: Asked = "",
    created_after: Asked = "",
    created_before: Asked = "",
    cursor: Cursor = None,
) -> HTMLResponse:
    asked = {
        "action": action.strip(),
        "key_id": key_id,
        "resource": resource.strip(),
        "created_after": created_after,
        "created_before": created_before,
    }
    try:
        return _page(service, visitor, _filters(asked), Filled(asked), cursor=cursor)
    except RequestFault as fault:
        return _page(service, visitor, None, Filled.refused(asked, fault), status=fault.status)


def _filters(asked: Mapping[str, str]) -> AuditFilters:
    """Raises RequestFault for a time that is none."""
    return AuditFilters(
        action=asked["action"] or None,
        resource=asked["resource"] or None,
        key_id=asked["key_id"] or None,
        created_after=minute(asked["created_after"], "created_after"),
        created_before=minute(asked["created_before"], "created_before"),
    )


def _page(
    service: Service,
    visitor: Visitor,
    filters: AuditFilters | None,
    form: Filled,
    *,
    cursor: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    """`filters`: None where what was asked for cannot be; then nothing is listed."""
    with service.database.read() as session:
        people = names_of(session, visitor.tenant_id)
        content: dict[str, Any] = {"lines": [], "next_cursor": None}
        if filters is not None:
            rows = newest_first(session, log.entries(visitor.tenant_id, filters), AuditEntry, cursor, PAGE)
            content = {
                "lines": [Line(row, people.get(row.key_id or "")) for row in rows.items],
                "next_cursor": rows.next_cursor,
            }
        return settings_page(
            "audit.html",
            service,
            visitor,
            now=clock(session),
            form=form,
            people=people,
            kinds=KINDS,
            narrowed=any(form.values.values()),
            address=_address(form.values),
            cursor=cursor,
            status=status,
            **content,
        )


def _address(asked: Mapping[str, str]) -> str:
    """Of the newest of what was asked for."""
    query = urlencode({name: value for name, value in asked.items() if value})
    return f"{START}?{query}" if query else START
