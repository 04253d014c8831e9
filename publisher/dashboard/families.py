"""The page of model families."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from publisher.api.service import CurrentService
from publisher.dashboard.access import CurrentVisitor
from publisher.dashboard.answers import PageRoute, page
from publisher.dashboard.listing import Listing, Word
from publisher.families.known import known_families
from publisher.store.database import clock

router = APIRouter(prefix="/families", route_class=PageRoute)


@router.get("")
def families(service: CurrentService, visitor: CurrentVisitor, q: Word = "") -> HTMLResponse:
    known, listing = known_families(), Listing.of("/families", "", None, 1, q=q)
    part = listing.fields.get("q", "").lower()
    found = [family for family in known.families if part in f"{family.family} {family.model_class}".lower()]
    with service.database.read() as session:
        now = clock(session)
    return page(
        "families.html",
        visitor=visitor,
        now=now,
        version=known.transformers,
        listing=listing,
        supported=[family for family in found if family.supported],
        others=[family for family in found if not family.supported],
    )
