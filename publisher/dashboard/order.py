"""The page of a new variant: filled in, planned as it changes, submitted once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session

from publisher.api import variants as api_variants
from publisher.api.base_models_schema import facts_of
from publisher.api.plans import plan_of
from publisher.api.plans_schema import PlanAnswer, PlanRequest
from publisher.api.service import CurrentService, Service
from publisher.api.variant_checks import check_publishing, check_room, recipe_faults
from publisher.api.variants_schema import PublishRequest, VariantRequest
from publisher.dashboard import draft as drafts
from publisher.dashboard import presets
from publisher.dashboard.access import CurrentVisitor, ForeignForm, SignedIn, Visitor, entitled, sessions_of
from publisher.dashboard.answers import PageRoute, page, see_other
from publisher.dashboard.draft import Draft
from publisher.dashboard.faults import Fault, Faults, raised_by
from publisher.dashboard.first_steps import curl
from publisher.dashboard.form_fields import without_defaults
from publisher.dashboard.plan_view import kept_per_layer
from publisher.dashboard.presets import Ground
from publisher.dashboard.session import SESSION_COOKIE
from publisher.dashboard.typed_form import TypedForm
from publisher.errors import PublisherError, RequestFault
from publisher.jobs.quotas import refuse_full_queue
from publisher.keys.scopes import Scope
from publisher.recipe import Recipe
from publisher.store.database import clock
from publisher.store.models import BaseModel, Variant
from publisher.store.namespaces import namespaces_of
from publisher.store.paging import newest_first
from publisher.store.resources import corpus_names, newest_base_model, takes_over_from
from publisher.store.tenancy import owned, readable_by
from publisher.store.variant_content import recipe_of

router = APIRouter(prefix="/variants/new", route_class=PageRoute)

#: bytes: the recipe stands in the form twice, as fields and as JSON, and each of its texts may be long
MAX_FORM = 262_144
#: base models to choose from
_MOST_LISTED = 100
_LONGEST_NAME = 96
#: of a recipe on this base model; who pasted a thousand names has enough to read
_MOST_FAULTS = 20


_STALE = Fault(None, "this form was of another session: look through it, and send it again.")


@dataclass(frozen=True)
class Preset:
    """A button: what it is called, what it does, and the recipe that it makes."""

    name: str
    title: str
    words: str
    recipe: Callable[[Ground, Draft], dict[str, Any]]


def _fits(ground: Ground, draft: Draft) -> dict[str, Any]:
    try:
        gib = float(draft.gib.replace(",", "."))
    except ValueError:
        gib = 0
    if not 0 < gib < float("inf"):
        raise RequestFault("say how much memory the card has, in GiB.", field="gib", way_out="Example: 24.")
    return presets.fits_a_card(ground, gib)


PRESETS = (
    Preset("fits", "Fits my card", "as little is pruned as LoRA training takes to fit, in 4 bits; at least 0.2", _fits),
    Preset(
        "paper",
        "The paper's",
        "LoRAM-Stru: 0.65, from 40 B parameters on 0.85 of each layer, then next-token training on general text",
        lambda ground, draft: presets.of_the_paper(ground),
    ),
    Preset(
        "carries",
        "Best carry-over",
        "what adapters gained most by: 0.4 by Taylor importance over all layers, reconstructed and distilled",
        lambda ground, draft: presets.best_carry_over(ground),
    ),
)


@router.get("")
def new_variant(
    service: CurrentService,
    visitor: CurrentVisitor,
    base_model: Annotated[str, Query(max_length=64)] = "",
    like: Annotated[str, Query(max_length=64)] = "",
) -> HTMLResponse:
    """`like`: begin with that variant's recipe."""
    with service.database.read() as session:
        draft = _like(session, visitor, like) if like else _start(session, visitor, base_model)
        return _show(session, service, visitor, draft)


@router.post("", max_body_size=MAX_FORM)
def order(request: Request, service: CurrentService, visitor: SignedIn, form: TypedForm) -> Response:
    """`do`: `submit`, a preset's name, or anything else for a plan alone. A form of another session does nothing, but
    comes back with what was typed: whoever had to sign in again in another tab has not lost it."""
    entitled(visitor, Scope.MODELS_READ)
    draft, wanted = Draft.typed(form), str(form.get("do", "plan"))
    if not sessions_of(service).is_genuine(str(form.get("csrf", "")), request.cookies.get(SESSION_COOKIE)):
        with service.database.read() as session:
            return _show(session, service, visitor, draft, [_STALE], answers=True, status=ForeignForm.status)
    preset = next((each for each in PRESETS if each.name == wanted), None)
    if wanted == "submit":
        entitled(visitor, Scope.VARIANTS_WRITE)
        return _submit(service, visitor, draft)
    with service.database.read() as session:
        if preset is not None:
            return _begin_anew(session, service, visitor, draft, preset)
        return _show(session, service, visitor, draft, answers=True)


def _submit(service: Service, visitor: Visitor, draft: Draft) -> Response:
    with service.database.read() as session:
        found = _faults(session, service, visitor, draft, in_full=True)
        if found:
            return _show(session, service, visitor, draft, found, answers=True)
    request = VariantRequest.model_validate(draft.request)
    try:
        # whoever comes back to the form and changes it asks for something else
        made, _ = api_variants.make(service, visitor.caller, request, f"form:{draft.nonce}:{request.digest[:32]}")
    except PublisherError as fault:
        with service.database.read() as session:
            return _show(session, service, visitor, draft, [Fault.of(fault)], status=fault.status)
    return see_other(f"/jobs/{made.job.id}" if made.job else f"/variants/{made.id}")


def _begin_anew(session: Session, service: Service, visitor: Visitor, draft: Draft, preset: Preset) -> Response:
    row = _base(session, visitor, draft)
    if row is None:
        return _show(session, service, visitor, draft, answers=True)
    try:
        recipe = preset.recipe(Ground.of(session, visitor.tenant_id, facts_of(row)), draft)
    except RequestFault as fault:
        return _show(session, service, visitor, draft, [Fault.of(fault)], answers=True)
    return _show(session, service, visitor, draft.with_recipe(recipe), answers=True)


def _start(session: Session, visitor: Visitor, base_model_id: str) -> Draft:
    row = (
        owned(session, BaseModel, visitor.tenant_id, base_model_id)
        if base_model_id
        else newest_base_model(session, visitor.tenant_id)
    )
    if row is None:
        return Draft.begin("", {}, {})
    recipe = presets.starting(Ground.of(session, visitor.tenant_id, facts_of(row)))
    name = f"{_name_of(row)}-loram-{recipe['pruning']['ratio']}"
    namespace = next(iter(namespaces_of(session, visitor.tenant_id)), visitor.tenant_name)
    return Draft.begin(row.id, recipe, {"repo_id": f"{namespace}/{name}"})


def _name_of(row: BaseModel) -> str:
    """The last part of what others call it, as a repository may be named."""
    name = str(row.facts.get("published_as") or row.repo_id).rstrip("/").rpartition("/")[2]
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "-" for letter in name)
    return plain.strip("-.")[: _LONGEST_NAME - 20] or "model"


def _like(session: Session, visitor: Visitor, id: str) -> Draft:
    row = owned(session, Variant, visitor.tenant_id, id)
    recipe = recipe_of(row)
    # what cannot be read is shown as it was stored, with what is wrong with it
    asked = without_defaults(recipe) if isinstance(recipe, Recipe) else row.recipe
    # what was not published keeps its name
    name = f"{row.publish_repo_id[: _LONGEST_NAME - 2]}-2" if row.publication else row.publish_repo_id
    return Draft.begin(row.base_model_id, asked, {"repo_id": name, "private": row.publish_private})


def _base(session: Session, visitor: Visitor, draft: Draft) -> BaseModel | None:
    return owned(session, BaseModel, visitor.tenant_id, draft.base_model_id) if draft.base_model_id else None


def _faults(
    session: Session, service: Service, visitor: Visitor, draft: Draft, *, in_full: bool = False
) -> list[Fault]:
    """Everything that is wrong, as things stand. Unless `in_full`, what is still blank is not."""
    found = list(draft.faults())
    if not in_full:
        found = [fault for fault in found if not _is_blank(draft, fault)]
    row = _base(session, visitor, draft)
    if row is None or draft.unread:
        return found if row is not None else [*found, Fault("base_model_id", "choose a base model.")]
    facts, checks = facts_of(row), [functools.partial(refuse_full_queue, session, visitor.tenant_id)]
    recipe, publish = draft.right_part(found), _part(PublishRequest, draft.body["publish"])
    if publish is not None:
        checks.append(functools.partial(check_publishing, session, service, visitor.caller, publish))
    if recipe is not None:
        wrong = islice(recipe_faults(session, visitor.caller, facts, recipe), _MOST_FAULTS)
        told = {fault.field for fault in found}
        found += [Fault.of(fault) for fault in wrong if fault.field not in told]
        if not found:
            checks.append(functools.partial(check_room, session, service, visitor.caller, facts, recipe))
    return found + [Fault.of(fault) for fault in raised_by(checks)]


def _is_blank(draft: Draft, fault: Fault) -> bool:
    return fault.field == "publish.repo_id" and not draft.texts["publish.repo_id"].strip()


def _part(model: type[Any], content: Any) -> Any:
    """None where it is wrong in itself, which was told already."""
    try:
        return model.model_validate(content)
    except ValidationError:
        return None


def _planned(session: Session, service: Service, visitor: Visitor, draft: Draft) -> PlanAnswer | None:
    recipe = None if draft.unread else _part(Recipe, draft.recipe)
    if recipe is None or not draft.base_model_id:
        return None
    try:
        request = PlanRequest(base_model_id=draft.base_model_id, recipe=recipe)
        return plan_of(session, service, visitor.caller, request)
    except RequestFault:  # what the recipe is refused for stands at its fields
        return None


def _show(
    session: Session,
    service: Service,
    visitor: Visitor,
    draft: Draft,
    faults: Iterable[Fault] | None = None,
    *,
    answers: bool = False,
    status: int | None = None,
) -> HTMLResponse:
    """`answers` a form: what is wrong with it is its status."""
    found = list(faults) if faults is not None else _faults(session, service, visitor, draft)
    plan = _planned(session, service, visitor, draft)
    return page(
        "new_variant.html",
        visitor=visitor,
        status=status or (422 if found and answers else 200),
        now=clock(session),
        draft=draft,
        groups=drafts.groups(),
        faults=Faults.at_places(found[:_MOST_FAULTS], drafts.places()),
        base_models=_listed(session, visitor, draft),
        corpora=corpus_names(session, visitor.tenant_id),
        presets=PRESETS,
        plan=plan,
        kept=None if plan is None else kept_per_layer(plan),
        there=takes_over_from(session, visitor.tenant_id, draft.texts["publish.repo_id"].strip()),
        command=curl(f"{service.settings.public_url}/v1/variants", _request_of(draft)),
    )


def _request_of(draft: Draft) -> dict[str, Any]:
    body = draft.body
    return body if draft.unread else body | {"recipe": draft.recipe}


def _listed(session: Session, visitor: Visitor, draft: Draft) -> Sequence[BaseModel]:
    """To choose from: the newest, and the one that is chosen."""
    rows = newest_first(session, readable_by(visitor.tenant_id, BaseModel), BaseModel, None, _MOST_LISTED).items
    chosen = _base(session, visitor, draft)
    return rows if chosen is None or chosen in rows else [chosen, *rows]
