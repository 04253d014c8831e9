"""Pages of base models: the list, one with what was made of it, registering, forgetting."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from publisher.api import base_models as api_base_models
from publisher.api.base_models_schema import BaseModelAnswer, BaseModelRequest
from publisher.api.outside import CurrentOutside
from publisher.api.service import CurrentService
from publisher.base_model.files import is_legal
from publisher.dashboard.access import CurrentVisitor, RegisteringVisitor, RegistrarLooking
from publisher.dashboard.answers import PageRoute, page, see_other
from publisher.dashboard.first_steps import first_steps, order_command
from publisher.dashboard.listing import PAGE, Cursor, Listing, Number, Sort, Word, find
from publisher.dashboard.registration import Registration
from publisher.dashboard.typed_form import ModelForm, Section, TypedForm
from publisher.store import filters as filtered
from publisher.store import orders
from publisher.store.database import clock
from publisher.store.filters import Filters
from publisher.store.models import BaseModel
from publisher.store.resources import made_from
from publisher.store.tenancy import owned

router = APIRouter(prefix="/base-models", route_class=PageRoute)

_HUB = Section(
    "A repository of the Hub",
    "It is pinned to the commit that the revision points to now. Of the weights only the headers are read.",
    ("repo_id", "revision"),
)
_FOLDER = Section(
    "Or a folder of this service's machines",
    "It is pinned by its content, and has to be there on every machine that runs workers.",
    ("path", "published_as"),
)
REGISTRATION = Registration(
    form=ModelForm(BaseModelRequest, (_HUB, _FOLDER, Section("To find it by", "", ("labels",)))),
    start="/base-models",
    word="Base models",
    title="Register a base model",
    busy="Looking at its files…",
    of_folders=_FOLDER,
)


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


@router.get("/new")
def form(service: CurrentService, visitor: RegistrarLooking) -> HTMLResponse:
    return REGISTRATION.shown(service, visitor)


@router.post("/new")
async def register(
    service: CurrentService, visitor: RegisteringVisitor, outside: CurrentOutside, typed: TypedForm
) -> Response:
    async def made(request: BaseModelRequest) -> str:
        row, _ = await api_base_models.register(request, service, outside, visitor.caller)
        return row.id

    return await REGISTRATION.answer(service, visitor, typed, made)


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
            licences=[name for name in facts.files if is_legal(name)],
            variants=made_from(session, visitor.tenant_id, id, PAGE),
            order=order_command(session, visitor.tenant_id, service.settings.public_url, id),
        )


@router.post("/{id}/delete")
def delete(id: str, service: CurrentService, visitor: RegisteringVisitor) -> Response:
    api_base_models.forget(service, visitor.caller, id)
    return see_other("/base-models")


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
