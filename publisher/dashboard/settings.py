"""The settings of a tenant: which pages there are, and what they have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from publisher.api.service import CurrentService, Service
from publisher.dashboard.access import SignedIn, Visitor
from publisher.dashboard.answers import PageRoute, page, see_other
from publisher.keys.scopes import MissingScope, Scope

router = APIRouter(prefix="/settings", route_class=PageRoute)


@dataclass(frozen=True)
class Tab:
    """`needs`: only who may do that sees it. `of_embedded_hub`: there is none where checkpoints go to a Hub
    elsewhere."""

    address: str
    word: str
    needs: Scope
    of_embedded_hub: bool = False


#: in the order in which they are named; a page names its own by `{% set tab = "/settings/keys" %}`
TABS = (
    Tab("/settings/keys", "API keys", Scope.ADMIN),
    Tab("/settings/members", "Members", Scope.ADMIN),
    Tab("/settings/webhooks", "Webhooks", Scope.ADMIN),
    Tab("/settings/hub", "Hub", Scope.ADMIN),
    Tab("/repositories", "Repositories", Scope.HUB_READ, of_embedded_hub=True),
    Tab("/settings/quotas", "Quotas", Scope.MODELS_READ),
    Tab("/settings/audit", "Audit log", Scope.ADMIN),
)


def tabs(service: Service, visitor: Visitor) -> list[Tab]:
    """Those that this visitor may open."""
    open_ones = [tab for tab in TABS if tab.needs in visitor.caller.rights]
    return [tab for tab in open_ones if service.hub is not None or not tab.of_embedded_hub]


def settings_page(template: str, service: Service, visitor: Visitor, **content: Any) -> HTMLResponse:
    """As publisher.dashboard.answers.page, with the way to the other settings."""
    return page(template, visitor=visitor, tabs=tabs(service, visitor), **content)


@router.get("")
def settings(service: CurrentService, visitor: SignedIn) -> Response:
    """The first that the visitor may open."""
    first = next(iter(tabs(service, visitor)), None)
    if first is None:
        raise MissingScope(Scope.ADMIN)
    return see_other(first.address)
