"""Pages of variants, and their files."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import joinedload, selectinload

from publisher.api import variant_files
from publisher.api.service import CurrentService
from publisher.dashboard.access import CurrentVisitor
from publisher.dashboard.answers import PageRoute, page
from publisher.dashboard.first_steps import first_steps
from publisher.dashboard.listing import PAGE, Cursor
from publisher.dashboard.variant_numbers import VariantNumbers
from publisher.dashboard.variant_page import VariantPage
from publisher.recipe import Pruning, Recipe
from publisher.store.database import clock
from publisher.store.models import Variant
from publisher.store.paging import newest_first
from publisher.store.states import JobState
from publisher.store.tenancy import owned, readable_by
from publisher.store.variant_content import recipe_of

router = APIRouter(prefix="/variants", route_class=PageRoute)

_WITH_LISTED = (joinedload(Variant.base_model), selectinload(Variant.jobs))


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


@router.get("")
def variants(service: CurrentService, visitor: CurrentVisitor, cursor: Cursor = None) -> HTMLResponse:
    with service.database.read() as session:
        mine = readable_by(visitor.tenant_id, Variant).options(*_WITH_LISTED)
        rows = newest_first(session, mine, Variant, cursor, PAGE)
        return page(
            "variants.html",
            visitor=visitor,
            now=clock(session),
            variants=[Entry.of(row) for row in rows.items],
            cursor=cursor,
            next_cursor=rows.next_cursor,
            steps=None if rows.items else first_steps(session, visitor.tenant_id, service.settings.public_url),
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
