"""Variants: a base model × a recipe, and the job that makes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response, status
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, selectinload
from starlette.concurrency import run_in_threadpool

from publisher.api.authentication import Caller, CurrentCaller
from publisher.api.errors import documented
from publisher.api.filters import BaseModelFilter, ListedFilters, RepoFilter, StateFilter, SweepFilter
from publisher.api.idempotency import IdempotencyKey, refuse_other_body
from publisher.api.labels import LabelChange
from publisher.api.outside import CurrentOutside
from publisher.api.paging import Page, RequestedPage
from publisher.api.publications import refuse_shared, withdraw
from publisher.api.service import CurrentService, Service
from publisher.api.variant_checks import check_variant
from publisher.api.variants_schema import VariantAnswer, VariantRequest, VariantSummary
from publisher.hub_client.deadline import answers_within
from publisher.jobs.dispatch import queue_in_broker
from publisher.jobs.removal import refuse_live, remove_variant
from publisher.jobs.service import enqueue
from publisher.keys.scopes import Scope, require
from publisher.manifest.reports import Publication
from publisher.recipe.versions import CURRENT as RECIPE_VERSION
from publisher.store import filters as filtered
from publisher.store.hub_credentials import OpenedCredential, opened_at
from publisher.store.labels import change_labels, set_labels
from publisher.store.models import BaseModel, Variant, new_id
from publisher.store.paging import newest_first
from publisher.store.resources import find_request
from publisher.store.tenancy import owned

router = APIRouter(prefix="/v1/variants", tags=["variants"])

PublicationFate = Literal["keep", "delete"]


@router.post("", status_code=status.HTTP_201_CREATED, responses=documented(401, 403, 404, 409, 422, 429))
def create_variant(
    request: VariantRequest,
    service: CurrentService,
    caller: CurrentCaller,
    response: Response,
    key: IdempotencyKey = None,
) -> VariantAnswer:
    """Make a variant: queues a job that prunes, aligns, quantizes, evaluates and publishes.

    Whatever can be checked is checked before anything is created. Follow `job.id` at `/v1/jobs/{id}/events`.
    """
    answer, is_new = make(service, caller, request, key)
    if not is_new:
        response.headers["Idempotency-Replayed"] = "true"
    return answer


def make(
    service: Service, caller: Caller, request: VariantRequest, key: str | None = None
) -> tuple[VariantAnswer, bool]:
    """The variant with its queued job, and whether it is new: False where a request with this `key` made it before.

    Raises RequestFault for a request that could only fail, QuotaExceeded, and Conflict for a key of another request.
    """
    try:
        answer, sent = _create(service, caller, request, key)
    except IntegrityError:
        # PostgreSQL lets two transactions look before either writes; the unique key lets one of them win
        with service.database.read() as session:
            found = _earlier(session, caller, request, key)
            if found is None:
                raise
            answer, sent = VariantAnswer.of(found), None
    if sent is not None:
        service.dispatcher.hand_over(*sent)
    return answer, sent is not None


def _create(
    service: Service, caller: Caller, request: VariantRequest, key: str | None
) -> tuple[VariantAnswer, tuple[str, str] | None]:
    """The answer, and the job to hand over with its queue: None if this request made it before."""
    with service.database.write() as session:
        found = _earlier(session, caller, request, key)
        if found is not None:
            return VariantAnswer.of(found), None
        base = check_variant(session, service, caller, request, kept=True)
        variant = add_variant(session, caller, base, request, key)
        job = enqueue(session, variant, request.priority, sent=True)
        return VariantAnswer.of(variant), (job.id, queue_in_broker(job))


def _earlier(session: Session, caller: Caller, request: VariantRequest, key: str | None) -> Variant | None:
    """What this request made before; Conflict if it was another one."""
    found = None if key is None else find_request(session, Variant, caller.tenant_id, key)
    if found is not None and key is not None:
        refuse_other_body(found, request.digest, key)
    return found


def add_variant(
    session: Session, caller: Caller, base: BaseModel, request: VariantRequest, key: str | None = None, **more: str
) -> Variant:
    """A row for a request that was checked, of a base model that is kept; `more`: id, sweep_id."""
    variant = Variant(
        **{"id": new_id(Variant.id_kind), **more},
        tenant_id=caller.tenant_id,
        base_model=base,
        base_model_id=base.id,
        recipe=request.recipe.model_dump(mode="json"),
        recipe_version=RECIPE_VERSION,
        recipe_digest=request.recipe.digest,
        publish_repo_id=request.publish.repo_id,
        publish_private=request.publish.private,
        idempotency_key=key,
        request_digest=request.digest,
        jobs=[],
    )
    session.add(variant)
    set_labels(session, variant, request.labels)
    return variant


@router.get("", responses=documented(401))
def list_variants(
    service: CurrentService,
    caller: CurrentCaller,
    page: RequestedPage,
    filters: ListedFilters,
    *,
    state: StateFilter = None,
    base_model_id: BaseModelFilter = None,
    repo_id: RepoFilter = None,
    sweep_id: SweepFilter = None,
) -> Page[VariantSummary]:
    """List variants."""
    wanted = replace(
        filters, states=tuple(state or ()), base_model_id=base_model_id, repo_id=repo_id, sweep_id=sweep_id
    )
    with service.database.read() as session:
        mine = filtered.variants(caller.tenant_id, wanted).options(selectinload(Variant.jobs))
        rows = newest_first(session, mine, Variant, page.cursor, page.limit)
        return Page(items=[VariantSummary.of(row) for row in rows.items], next_cursor=rows.next_cursor)


@router.get("/{id}", responses=documented(401, 404))
def get_variant(id: str, service: CurrentService, caller: CurrentCaller) -> VariantAnswer:
    """Get a variant with its manifest."""
    with service.database.read() as session:
        return VariantAnswer.of(owned(session, Variant, caller.tenant_id, id))


@router.patch("/{id}", responses=documented(401, 404, 422))
def change_variant(id: str, change: LabelChange, service: CurrentService, caller: CurrentCaller) -> VariantAnswer:
    """Change a variant's labels."""
    with service.database.write() as session:
        row = owned(session, Variant, caller.tenant_id, id)
        change_labels(session, row, change.labels)
        return VariantAnswer.of(row)


@router.delete("/{id}", status_code=status.HTTP_204_NO_CONTENT, responses=documented(401, 403, 404, 409, 429, 503))
async def delete_variant(
    id: str,
    service: CurrentService,
    caller: CurrentCaller,
    outside: CurrentOutside,
    publication: Annotated[PublicationFate, Query(description="what becomes of its checkpoint on the Hub")] = "keep",
) -> None:
    """Forget a variant and its jobs, which must have ended.

    With `publication=delete` its checkpoint goes first: the repository of the embedded Hub, or of another Hub the files
    that it published, by a commit. That is refused where the repository holds more, or has moved on. Interrupted, the
    same request again finishes.
    """
    if publication == "delete":
        require(Scope.HUB_WRITE, caller.rights)
    published, paths, own = await run_in_threadpool(_deletable, service, caller, id, withdrawn=publication == "delete")
    if published is not None:
        await outside.calls.run(
            caller.tenant_id, f"the Hub {published.endpoint}", lambda: _withdraw(service, published, paths, own)
        )
    await run_in_threadpool(_forget, service, caller, id)


def _deletable(
    service: Service, caller: Caller, id: str, *, withdrawn: bool
) -> tuple[Publication | None, list[str], OpenedCredential | None]:
    """What is to be taken back first, with the paths of its files, and the tenant's Hub if it is there; Conflict for
    what has to stay."""
    with service.database.read() as session:
        row = owned(session, Variant, caller.tenant_id, id)
        refuse_live(row.jobs)
        if row.publication is None or not withdrawn:
            return None, [], None
        published = Publication.model_validate(row.publication)
        refuse_shared(session, row, published)
        own = opened_at(session, service.settings, caller.tenant_id, published.endpoint)
        return published, [file.path for file in row.files], own


def _withdraw(service: Service, published: Publication, paths: list[str], own: OpenedCredential | None) -> None:
    with answers_within(service.settings.outside_seconds):
        withdraw(service.settings, service.hub, published, paths, own)


def _forget(service: Service, caller: Caller, id: str) -> None:
    with service.database.write() as session:
        remove_variant(session, owned(session, Variant, caller.tenant_id, id))
