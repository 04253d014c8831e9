"""Pages of variants, and their files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import defer, joinedload, selectinload

from publisher.api import variant_files
from publisher.api.service import CurrentService
from publisher.dashboard.access import CurrentVisitor
from publisher.dashboard.answers import PageRoute, page
from publisher.dashboard.first_steps import first_steps
from publisher.dashboard.job_rows import STATES
from publisher.dashboard.listing import Cursor, Listing, Number, OrNone, Sort, Word, find
from publisher.dashboard.variant_numbers import VariantNumbers
from publisher.dashboard.variant_page import VariantPage
from publisher.recipe import Pruning, Recipe
from publisher.store import filters as filtered
from publisher.store import orders
from publisher.store.database import clock
from publisher.store.filters import Filters
from publisher.store.models import Job, Variant
from publisher.store.resources import base_model_names
from publisher.store.states import JobState
from publisher.store.tenancy import owned
from publisher.store.variant_content import recipe_of

router = APIRouter(prefix="/variants", route_class=PageRoute)

_WITH_LISTED = (
    joinedload(Variant.base_model),
    selectinload(Variant.jobs).load_only(Job.variant_id, Job.state),
    defer(Variant.publication),
)


@dataclass(frozen=True)
class Entry:
    """A line of the list; `state` is the latest job's, None if it was deleted, `pruning` and `numbers` None where they
    cannot be read."""

    variant: Variant
    state: JobState | None
    pruning: Pruning | None
    numbers: VariantNumbers | None

    @classmethod
    def of(cls, row: Variant) -> Entry:
        recipe = recipe_of(row)
        pruning = recipe.pruning if isinstance(recipe, Recipe) else None
        return cls(row, row.jobs[-1].state if row.jobs else None, pruning, VariantNumbers.of(row))


#: orders in words, for the form
SORTS = {
    "": "newest first",
    "created": "oldest first",
    "name": "by name",
    "-reduction": "smallest first",
    "verdict": "by certificate",
}


@router.get("")
def variants(
    service: CurrentService,
    visitor: CurrentVisitor,
    q: Word = "",
    base_model: Word = "",
    state: Annotated[JobState | None, OrNone, Query()] = None,
    *,
    sort: Sort = "",
    cursor: Cursor = None,
    number: Number = 1,
) -> HTMLResponse:
    listing = Listing.of("/variants", sort, cursor, number, q=q, base_model=base_model, state=state)
    states = () if state is None else (state,)
    given = listing.fields.get
    wanted = Filters(search=given("q"), base_model_id=given("base_model"), states=states)
    with service.database.read() as session:
        mine = filtered.variants(visitor.tenant_id, wanted).options(*_WITH_LISTED)
        found = find(session, mine, Variant, orders.VARIANTS, listing)
        empty = not found.rows and listing.is_as_it_is
        return page(
            "variants.html",
            visitor=visitor,
            now=clock(session),
            variants=[Entry.of(row) for row in found.rows],
            found=found,
            listing=listing,
            base_models=base_model_names(session, visitor.tenant_id),
            states={each.value: each.value for each in STATES},
            sorts=SORTS,
            steps=first_steps(session, visitor.tenant_id, service.settings.public_url) if empty else None,
        )


@router.get("/{id}")
def variant(id: str, service: CurrentService, visitor: CurrentVisitor) -> HTMLResponse:
    with service.database.read() as session:
        shown = VariantPage(owned(session, Variant, visitor.tenant_id, id), service)
        return page("variant.html", visitor=visitor, now=clock(session), shown=shown, variant=shown.row)


@router.get("/{id}/files/{path:path}")
def file(id: str, path: str, request: Request, service: CurrentService, visitor: CurrentVisitor) -> Response:
    """The API's download, for a session instead of a key."""
    return variant_files.read_file(id, path, request, service, visitor.caller)
