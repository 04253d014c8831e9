"""Base models: registered once, pinned, refused if they cannot be pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fastapi import APIRouter, Response, status
from sqlalchemy.exc import IntegrityError
from starlette.concurrency import run_in_threadpool

from publisher.api.authentication import Caller, CurrentCaller
from publisher.api.base_models_schema import BaseModelAnswer, BaseModelRequest
from publisher.api.errors import documented
from publisher.api.filters import ListedFilters, RepoFilter
from publisher.api.labels import LabelChange
from publisher.api.local_paths import allowed_path
from publisher.api.outside import CurrentOutside, Outside
from publisher.api.paging import Page, RequestedPage
from publisher.api.service import CurrentService, Service
from publisher.base_model.facts import BaseModelFacts, inspect_folder, inspect_repository
from publisher.errors import Conflict
from publisher.hub_client.deadline import answers_within
from publisher.settings import Settings
from publisher.store import deletion, hub_credentials
from publisher.store import filters as filtered
from publisher.store.audit import record
from publisher.store.labels import change_labels, set_labels
from publisher.store.models import BaseModel
from publisher.store.paging import newest_first
from publisher.store.resources import find_base_model
from publisher.store.tenancy import owned

router = APIRouter(prefix="/v1/base-models", tags=["base models"])


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=documented(429) | {200: {"model": BaseModelAnswer, "description": "registered before"}},
)
async def register_base_model(
    request: BaseModelRequest,
    service: CurrentService,
    caller: CurrentCaller,
    outside: CurrentOutside,
    response: Response,
) -> BaseModelAnswer:
    """Register a base model.

    Reads JSON files and the headers of the weights; of the weights only two tensors, if `config.json` says that
    they are one. The same commit again is answered 200 with what is there already; a folder under another name is
    another base model.
    """
    row, is_new = await register(request, service, outside, caller)
    if not is_new:
        response.status_code = status.HTTP_200_OK
    return BaseModelAnswer.of(row)


async def register(
    request: BaseModelRequest, service: Service, outside: Outside, caller: Caller
) -> tuple[BaseModel, bool]:
    """The row, and whether it is new. Raises RequestFault for what cannot be pruned, InfrastructureFault where a Hub or
    a disk does not answer."""
    facts = await _inspect(request, service, outside, caller)
    return await run_in_threadpool(_find_or_add, service, caller, facts, request.labels)


async def _inspect(request: BaseModelRequest, service: Service, outside: Outside, caller: Caller) -> BaseModelFacts:
    settings = service.settings
    if request.path is not None:
        return await outside.readings.run(
            caller.tenant_id, request.path, lambda: _inspect_folder(request, settings, caller)
        )
    hub, token = f"the Hub {settings.base_model_endpoint}", await run_in_threadpool(_read_token, service, caller)
    return await outside.calls.run(caller.tenant_id, hub, lambda: _inspect_repository(request, settings, token))


def _inspect_folder(request: BaseModelRequest, settings: Settings, caller: Caller) -> BaseModelFacts:
    assert request.path is not None
    return inspect_folder(allowed_path(request.path, settings, caller.local_roots), request.published_as)


def _read_token(service: Service, caller: Caller) -> str | None:
    with service.database.read() as session:
        return hub_credentials.read_token(session, service.settings, caller.tenant_id)


def _inspect_repository(request: BaseModelRequest, settings: Settings, token: str | None) -> BaseModelFacts:
    assert request.repo_id is not None
    with answers_within(settings.outside_seconds):
        return inspect_repository(request.repo_id, request.revision, settings.base_model_endpoint, token)


def _find_or_add(
    service: Service, caller: Caller, facts: BaseModelFacts, labels: Mapping[str, str]
) -> tuple[BaseModel, bool]:
    with service.database.write() as session:
        found = find_base_model(session, caller.tenant_id, facts)
        if found is not None:
            if labels:
                change_labels(session, found, labels)
            return found, False
        row = BaseModel(
            tenant_id=caller.tenant_id,
            repo_id=facts.repo_id,
            revision=facts.revision,
            path=None if facts.path is None else str(facts.path),
            facts=facts.model_dump(mode="json"),
        )
        session.add(row)
        session.flush()
        set_labels(session, row, labels)
        where = row.path or row.repo_id
        record(session, "base_model.register", row.id, tenant_id=row.tenant_id, source=where, revision=row.revision)
        return row, True


@router.get("", responses=documented(401))
def list_base_models(
    service: CurrentService,
    caller: CurrentCaller,
    page: RequestedPage,
    filters: ListedFilters,
    repo_id: RepoFilter = None,
) -> Page[BaseModelAnswer]:
    """List base models."""
    mine = filtered.base_models(caller.tenant_id, replace(filters, repo_id=repo_id))
    with service.database.read() as session:
        rows = newest_first(session, mine, BaseModel, page.cursor, page.limit)
    return Page(items=[BaseModelAnswer.of(row) for row in rows.items], next_cursor=rows.next_cursor)


@router.get("/{id}", responses=documented(401, 404))
def get_base_model(id: str, service: CurrentService, caller: CurrentCaller) -> BaseModelAnswer:
    """Get a base model."""
    with service.database.read() as session:
        return BaseModelAnswer.of(owned(session, BaseModel, caller.tenant_id, id))


@router.patch("/{id}", responses=documented(401, 404, 422))
def change_base_model(id: str, change: LabelChange, service: CurrentService, caller: CurrentCaller) -> BaseModelAnswer:
    """Change a base model's labels."""
    with service.database.write() as session:
        row = owned(session, BaseModel, caller.tenant_id, id)
        change_labels(session, row, change.labels)
        return BaseModelAnswer.of(row)


@router.delete("/{id}", status_code=status.HTTP_204_NO_CONTENT, responses=documented(401, 404, 409))
def delete_base_model(id: str, service: CurrentService, caller: CurrentCaller) -> None:
    """Forget a base model that no variant uses. Its files stay where they are."""
    forget(service, caller, id)


def forget(service: Service, caller: Caller, id: str) -> None:
    """Raises NotFound, or Conflict with who uses it."""
    try:
        with service.database.write() as session:
            deletion.delete_base_model(session, owned(session, BaseModel, caller.tenant_id, id))
    except IntegrityError as error:  # a variant was made from it at this moment
        raise Conflict(f"base model {id} is used by a variant.", way_out="GET /v1/variants lists it.") from error
