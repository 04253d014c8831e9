"""The page of what the tenant may have at once, and has."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from publisher.api import quotas as calls
from publisher.api.service import CurrentService
from publisher.dashboard.access import CurrentVisitor
from publisher.dashboard.answers import PageRoute
from publisher.dashboard.settings import settings_page

router = APIRouter(prefix="/settings/quotas", route_class=PageRoute)


@router.get("")
def quotas(service: CurrentService, visitor: CurrentVisitor) -> HTMLResponse:
    found = calls.get_quotas(service, visitor.caller)
    return settings_page("quotas.html", service, visitor, quotas=found.items)
