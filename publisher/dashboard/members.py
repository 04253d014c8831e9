"""The page of people who sign in: the operator lets them in, `publisher admin member`."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from publisher.api.service import CurrentService
from publisher.dashboard.access import Administrator
from publisher.dashboard.answers import PageRoute
from publisher.dashboard.settings import settings_page
from publisher.people.roles import Role
from publisher.store import members as rows
from publisher.store.database import clock

router = APIRouter(prefix="/settings/members", route_class=PageRoute)


@router.get("")
def members(service: CurrentService, visitor: Administrator) -> HTMLResponse:
    with service.database.read() as session:
        found = rows.members(session, visitor.tenant_name)
        return settings_page(
            "members.html",
            service,
            visitor,
            now=clock(session),
            members=sorted(found, key=lambda row: row.ended_at is not None),
            roles=list(Role),
            provider=None if service.settings.oidc_issuer is None else service.settings.oidc_name,
        )
