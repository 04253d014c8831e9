"""Creating, deleting and changing the visibility of repositories."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from publisher.hub.access import (
    CurrentHub,
    KnownCaller,
    Readable,
    Segment,
    Writable,
    find_readable,
    require_owner,
    require_whole_account,
)
from publisher.hub.faults import AlreadyExists, BadRequest
from publisher.hub.links import repository_url
from publisher.hub.names import RepositoryId
from publisher.hub.owner import Owner
from publisher.hub.protocol import NewRepository, RepositoryReference, SettingsUpdate

router = APIRouter()


@router.post("/api/repos/create")
def create(body: NewRepository, request: Request, hub: CurrentHub, caller: KnownCaller) -> Response:
    id = _repository_id(body, caller)
    url = repository_url(hub.url(request), id)
    try:
        hub.storage.create_repository(id, caller, private=body.is_private)
    except AlreadyExists as error:
        # With the address: a client that passed exist_ok goes on with it.
        return JSONResponse({"error": str(error), "url": url, "name": str(id), "id": str(id)}, error.status)
    return JSONResponse({"url": url, "name": str(id), "id": str(id), "private": body.is_private})


@router.delete("/api/repos/delete")
def delete(body: RepositoryReference, hub: CurrentHub, caller: KnownCaller) -> dict[str, bool]:
    require_whole_account(caller)
    repository = require_owner(find_readable(hub.storage, _repository_id(body, caller), caller), caller)
    hub.storage.delete_repository(repository.id)
    return {"success": True}


@router.put("/api/models/{namespace}/{name}/settings")
def change_settings(body: SettingsUpdate, repository: Writable, caller: KnownCaller) -> dict[str, bool]:
    require_whole_account(caller)
    if body.gated:
        raise BadRequest(
            "This Hub has no gated repositories.", field="gated", way_out="Make the repository private instead."
        )
    if body.new_private is not None:
        repository.set_private(body.new_private)
    return {"private": repository.settings.private, "gated": False}


@router.get("/api/models/{namespace}/{name}/auth-check")
def may_read(repository: Readable) -> dict[str, bool]:
    return {"read": repository.exists()}


@router.get("/api/models/{namespace}/{name}/auth-check/write")
def may_write(hub: CurrentHub, caller: KnownCaller, namespace: Segment, name: Segment) -> dict[str, bool]:
    """Forbidden, whether the repository exists or not, where the namespace is somebody else's."""
    id = RepositoryId.parse(f"{namespace}/{name}")
    hub.storage.require_namespace(id.namespace, caller)
    return {"write": require_owner(find_readable(hub.storage, id, caller), caller).exists()}


def _repository_id(body: RepositoryReference, caller: Owner) -> RepositoryId:
    """Without an organization, the caller's own namespace is meant."""
    if body.type not in (None, "model"):
        raise BadRequest(
            f"This Hub keeps models only, not repositories of type {body.type!r}.",
            field="type",
            way_out="Use repo_type='model'.",
        )
    return RepositoryId.parse(f"{body.organization or caller.name}/{body.name}")
