"""Pages of base models: the list, one with what was made of it, registering, forgetting."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from publisher.api import base_models as api_base_models
from publisher.api.base_models_schema import BaseModelAnswer, BaseModelRequest
from publisher.api.local_paths import roots_of
from publisher.api.outside import CurrentOutside
from publisher.api.service import CurrentService, Service
from publisher.base_model.files import is_legal
from publisher.dashboard.access import CurrentVisitor, RegisteringVisitor, RegistrarLooking, Visitor
from publisher.dashboard.answers import PageRoute, page, see_other
from publisher.dashboard.first_steps import first_steps, order_command
from publisher.dashboard.listing import PAGE, Cursor, Listing, Number, Sort, Word, find
from publisher.dashboard.typed_form import ModelForm, Section, TypedForm, faults_of
from publisher.errors import PublisherError
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
FORM = ModelForm(BaseModelRequest, (_HUB, _FOLDER, Section("To find it by", "", ("labels",))))


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
    return _form(service, visitor, {})


@router.post("/new")
async def register(
    service: CurrentService, visitor: RegisteringVisitor, outside: CurrentOutside, typed: TypedForm
) -> Response:
    texts = FORM.texts(typed)
    try:
        request = BaseModelRequest.model_validate(FORM.body(texts))
        row, _ = await api_base_models.register(request, service, outside, visitor.caller)
    except (ValidationError, PublisherError) as error:
        return await run_in_threadpool(_form, service, visitor, texts, error)
    return see_other(f"/base-models/{row.id}")


def _form(
    service: Service, visitor: Visitor, texts: dict[str, str], error: ValidationError | PublisherError | None = None
) -> HTMLResponse:
    found, status = faults_of(error) if error else ([], 200)
    roots = roots_of(service.settings, visitor.caller.local_roots)
    with service.database.read() as session:
        now = clock(session)
    return page(
        "register.html",
        visitor=visitor,
        status=status,
        now=now,
        section="/base-models",
        title="Register a base model",
        address="/base-models/new",
        back=("/base-models", "Base models"),
        busy="Looking at its files…",
        form_sections=[each for each in FORM.sections if each is not _FOLDER or roots],
        fields=FORM.fields,
        texts=texts,
        faults=FORM.faults(found),
        roots=roots,
        required=set(),
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
