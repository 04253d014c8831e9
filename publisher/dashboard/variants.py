"""Pages of variants, and their files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

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
from publisher.manifest.reports import Publication
from publisher.recipe import Pruning, Recipe
from publisher.settings import Settings
from publisher.store import filters as filtered
from publisher.store import orders
from publisher.store.database import clock
from publisher.store.filters import Filters
from publisher.store.models import Job, Variant
from publisher.store.resources import base_model_names
from publisher.store.states import JobState
from publisher.store.tenancy import owned
from publisher.store.variant_content import Unreadable, manifest_of, recipe_of

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
        row = owned(session, Variant, visitor.tenant_id, id)
        recipe, manifest = recipe_of(row), manifest_of(row)
        publication = Publication.model_validate(row.publication) if row.publication else None
        return page(
            "variant.html",
            visitor=visitor,
            now=clock(session),
            variant=row,
            job=row.jobs[-1] if row.jobs else None,
            numbers=VariantNumbers.of(row),
            problems=[part.reason for part in (recipe, manifest) if isinstance(part, Unreadable)],
            files=row.files,
            publication=publication,
            publication_url=publication_page(publication, service.settings) if publication else None,
            download=download_command(publication) if publication else None,
            recipe=list(in_groups(recipe)) if isinstance(recipe, Recipe) else [],
            recipe_json=json.dumps(row.recipe, indent=2, ensure_ascii=False),
        )


@router.get("/{id}/files/{path:path}")
def file(id: str, path: str, request: Request, service: CurrentService, visitor: CurrentVisitor) -> Response:
    """The API's download, for a session instead of a key."""
    return variant_files.read_file(id, path, request, service, visitor.caller)


def publication_page(publication: Publication, settings: Settings) -> str | None:
    """Where a person can look at it; None for the embedded Hub, which serves files to programs and has no pages."""
    if settings.is_embedded_hub(publication.endpoint):
        return None
    # escaping does not stop a link to `javascript:`
    return publication.url if publication.url.startswith(("https://", "http://")) else None


def download_command(publication: Publication) -> str:
    """Gets exactly this checkpoint, for a POSIX shell."""
    endpoint, repo_id, commit = map(shlex.quote, (publication.endpoint, publication.repo_id, publication.commit))
    return f"HF_ENDPOINT={endpoint} hf download {repo_id} \\\n  --revision {commit}"


def in_groups(recipe: Recipe) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A recipe's parts with those fields that mean something in it, in words.

    What stands alone (the seed, a part left out) comes last.
    """
    alone = []
    pruning = recipe.pruning.model_dump(mode="json", exclude=set(recipe.pruning.unread))
    if recipe.pruning.calibration:  # names its text in one of two ways
        calibration = recipe.pruning.calibration.model_dump(mode="json")
        pruning |= {"calibration": {name: value for name, value in calibration.items() if value not in (None, [])}}
    for part, content in (recipe.model_dump(mode="json") | {"pruning": pruning}).items():
        if isinstance(content, Mapping):
            yield part, list(flatten(content))
        else:
            alone.append((part, _words(content)))
    yield "other", alone


def flatten(part: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """`{"calibration": {"sequence_length": 256}}` → `("calibration sequence length", "256")`, in order."""
    for name, value in part.items():
        words = f"{above} {name}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            yield from flatten(value, words)
        else:
            yield words, _words(value)


def _words(value: object) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_listed(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def _listed(item: object) -> str:
    """A corpus with its share is `name × weight`."""
    return " × ".join(_words(part) for part in item.values()) if isinstance(item, Mapping) else str(item)
