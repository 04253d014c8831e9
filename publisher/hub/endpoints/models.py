"""Describing models: one at a revision, or all that the caller may see."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from publisher.hub.access import Caller, CurrentHub, Readable, Segment
from publisher.hub.descriptions import describe, describe_briefly
from publisher.hub.faults import RepositoryMissing
from publisher.hub.pages import Cursor, add_next_link
from publisher.hub.protocol import ModelDescription
from publisher.hub.references import DEFAULT_BRANCH

router = APIRouter()
_PAGE = 1000


@router.get("/api/models", response_model_exclude_none=True)
def list_models(
    *,
    request: Request,
    response: Response,
    hub: CurrentHub,
    caller: Caller,
    search: str = "",
    author: str = "",
    filter: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
    sort: str | None = None,
    limit: Annotated[int, Query(ge=1)] = _PAGE,
    full: bool = False,
    cursor: Cursor = 0,
) -> list[ModelDescription]:
    """Sorted by id; with `sort`, newest first."""
    visible = [
        describe_briefly(repository, with_files=full)
        for repository in hub.storage.readable_repositories(caller)
        if (not author or repository.id.namespace == author) and search.lower() in str(repository.id).lower()
    ]
    found = [model for model in visible if set(filter) <= set(model.tags)]
    if sort is not None:
        found.sort(key=lambda model: model.created_at if sort == "createdAt" else model.last_modified, reverse=True)
    size = min(limit, _PAGE)
    add_next_link(request, response, hub.url(request), cursor + size if cursor + size < len(found) else None)
    return found[cursor : cursor + size]


@router.get("/api/models/{namespace}/{name}", response_model_exclude_none=True)
def model(repository: Readable, blobs: bool = False) -> ModelDescription:
    return describe(repository, DEFAULT_BRANCH, with_sizes=blobs)


@router.get("/api/models/{namespace}/{name}/revision/{revision}", response_model_exclude_none=True)
def model_at(repository: Readable, revision: Segment, blobs: bool = False) -> ModelDescription:
    return describe(repository, revision, with_sizes=blobs)


@router.get("/api/models/{name}")
@router.get("/api/models/{name}/revision/{revision}")
@router.api_route("/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
def model_without_namespace(name: Segment) -> None:
    raise RepositoryMissing(
        f"There is no repository {name!r}.", field="repo_id", way_out="Repositories here are called namespace/name."
    )


@router.api_route("/api/datasets/{rest:path}", methods=["GET", "POST"])
@router.api_route("/api/spaces/{rest:path}", methods=["GET", "POST"])
@router.api_route("/datasets/{rest:path}", methods=["GET", "HEAD"])
@router.api_route("/spaces/{rest:path}", methods=["GET", "HEAD"])
def not_a_model(rest: Segment) -> None:
    raise RepositoryMissing(
        f"There is no dataset or space {rest!r}: this Hub keeps models only.",
        field="repo_type",
        way_out="Use repo_type='model'.",
    )
