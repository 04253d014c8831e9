"""Pages of base models."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from publisher.api.base_models_schema import BaseModelAnswer
from publisher.api.service import CurrentService
from publisher.dashboard.access import CurrentVisitor
from publisher.dashboard.answers import PageRoute, page
from publisher.dashboard.first_steps import first_steps, order_command
from publisher.dashboard.listing import PAGE, Cursor, Listing, Number, Sort, Word, find
from publisher.store import filters as filtered
from publisher.store import orders
from publisher.store.database import clock
from publisher.store.filters import Filters
from publisher.store.models import BaseModel
from publisher.store.resources import made_from
from publisher.store.tenancy import owned

router = APIRouter(prefix="/base-models", route_class=PageRoute)


#: orders in words, for the form
SORTS = {
    "": "newest first",
    "created": "oldest first",
    "name": "by name",
    "family": "by family",
    "-parameters": "largest first",
    "parameters": "smallest first",
}


@router.get("")
def base_models(
    service: CurrentService,
    visitor: CurrentVisitor,
    q: Word = "",
    *,
    sort: Sort = "",
    cursor: Cursor = None,
    number: Number = 1,
) -> HTMLResponse:
    listing = Listing.of("/base-models", sort, cursor, number, q=q)
    with service.database.read() as session:
        mine = filtered.base_models(visitor.tenant_id, Filters(search=listing.fields.get("q")))
        found = find(session, mine, BaseModel, orders.BASE_MODELS, listing)
        empty = not found.rows and listing.is_as_it_is
        return page(
            "base_models.html",
            visitor=visitor,
            now=clock(session),
            base_models=found.rows,
            found=found,
            listing=listing,
            sorts=SORTS,
            steps=first_steps(session, visitor.tenant_id, service.settings.public_url) if empty else None,
        )


@router.get("/{id}")
def base_model(id: str, service: CurrentService, visitor: CurrentVisitor) -> HTMLResponse:
    with service.database.read() as session:
        row = owned(session, BaseModel, visitor.tenant_id, id)
        facts = BaseModelAnswer.of(row)
        return page(
            "base_model.html",
            visitor=visitor,
            now=clock(session),
            model=row,
            facts=facts,
            geometry=[(name.replace("_", " "), _word(value)) for name, value in facts.geometry],
            variants=made_from(session, visitor.tenant_id, id, PAGE),
            order=order_command(session, visitor.tenant_id, service.settings.public_url, id),
        )


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
