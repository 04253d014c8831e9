"""Where the tenant's variants are published: the service's Hub, or one of its own."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from publisher.api import hub_credentials as calls
from publisher.api.hub_credentials_schema import HubCredentialRequest
from publisher.api.outside import CurrentOutside
from publisher.api.service import CurrentService, Service
from publisher.dashboard.access import Administrator, SendingAdministrator, Visitor
from publisher.dashboard.answers import PageRoute, see_other
from publisher.dashboard.filled import Filled, Line, read
from publisher.dashboard.settings import settings_page
from publisher.errors import PublisherError
from publisher.store import hub_credentials
from publisher.store.actors import names_of
from publisher.store.database import clock

START = "/settings/hub"
router = APIRouter(prefix=START, route_class=PageRoute)


@router.get("")
def hub(service: CurrentService, visitor: Administrator) -> HTMLResponse:
    return _page(service, visitor)


def _page(service: Service, visitor: Visitor, form: Filled | None = None, status: int = 200) -> HTMLResponse:
    with service.database.read() as session:
        row = hub_credentials.find(session, visitor.tenant_id)
        return settings_page(
            "hub.html",
            service,
            visitor,
            now=clock(session),
            own=row,
            setter=names_of(session, visitor.tenant_id, [row.set_by] if row else []),
            service_endpoint=service.settings.resolved_hub_endpoint,
            is_embedded=service.settings.hub_is_embedded,
            form=form or Filled({"endpoint": row.endpoint if row else ""}),
            status=status,
        )


@router.post("")
async def put(
    service: CurrentService,
    visitor: SendingAdministrator,
    outside: CurrentOutside,
    *,
    endpoint: Line = "",
    write_token: Line = "",
    read_token: Line = "",
) -> Response:
    """The Hub is asked whose token it is before it is kept."""
    sent = {"endpoint": endpoint.strip(), "write_token": write_token.strip(), "read_token": read_token.strip() or None}
    try:
        await calls.put_hub_credential(read(HubCredentialRequest, sent), service, visitor.caller, outside)
    except PublisherError as fault:
        # no page repeats a token
        form = Filled.refused({"endpoint": endpoint, "write_token": "", "read_token": ""}, fault)
        return await run_in_threadpool(_page, service, visitor, form, fault.status)
    return see_other(START)


@router.post("/delete")
def delete(service: CurrentService, visitor: SendingAdministrator) -> Response:
    calls.delete_hub_credential(service, visitor.caller)
    return see_other(START)
