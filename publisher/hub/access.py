"""Who may do what: every endpoint gets its repository from here, and only if the caller may read or write it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, cast
from urllib.parse import unquote

from fastapi import Depends, Path, Request
from pydantic import AfterValidator

from publisher.hub.faults import BadCredentials, Forbidden, LoginNeeded, RepositoryMissing
from publisher.hub.links import UploadLinks, hub_url
from publisher.hub.names import RepositoryId
from publisher.hub.owner import Owner
from publisher.hub.repositories import Repository
from publisher.hub.storage import HubStorage
from publisher.keys.scopes import MissingScope, Scope, require


@dataclass(frozen=True)
class Hub:
    """What the endpoints work with."""

    storage: HubStorage
    authenticate: Callable[[str], Owner | None]
    links: UploadLinks
    public_url: str | None

    def url(self, request: Request) -> str:
        return hub_url(request, self.public_url)


class UnknownRepository(RepositoryMissing):
    """To anonymous callers a missing repository and a private one are both a 401, as on huggingface.co."""

    def __init__(self, id: RepositoryId, caller: Owner | None) -> None:
        super().__init__(
            f"There is no repository {str(id)!r}, or it is private.",
            field="repo_id",
            way_out="Check the name, and send the access token of its owner if it is private.",
        )
        self.status = 401 if caller is None else 404


async def current_hub(request: Request) -> Hub:
    return cast(Hub, request.app.state.hub)


CurrentHub = Annotated[Hub, Depends(current_hub)]


def current_caller(request: Request, hub: CurrentHub) -> Owner | None:
    """Nobody without an Authorization header; raises BadCredentials for a token that is not valid, or no longer."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    owner = hub.authenticate(token.strip()) if scheme.lower() == "bearer" and token.strip() else None
    if owner is None:
        raise BadCredentials
    return owner


def require_whole_account(caller: Owner) -> None:
    """Raises Forbidden for a token that is for publishing into one repository."""
    if caller.repository is not None:
        raise Forbidden(
            f"This token publishes into {caller.repository!r}: it neither deletes nor changes a repository.",
            way_out="Use an API key.",
        )


Caller = Annotated[Owner | None, Depends(current_caller)]


async def known_caller(caller: Caller) -> Owner:
    if caller is None:
        raise LoginNeeded("This needs an access token.", way_out="Set HF_TOKEN to one of your API keys.")
    return caller


KnownCaller = Annotated[Owner, Depends(known_caller)]

# The middleware keeps slashes inside a segment encoded (a branch `feature/x` is one segment); here they come back.
Segment = Annotated[str, Path(), AfterValidator(unquote)]


def readable_repository(hub: CurrentHub, caller: Caller, namespace: Segment, name: Segment) -> Repository:
    id = RepositoryId.parse(f"{namespace}/{name}")
    return find_readable(hub.storage, id, caller)


def find_readable(storage: HubStorage, id: RepositoryId, caller: Owner | None) -> Repository:
    """Raises UnknownRepository alike for what is not there and for what the caller may not see."""
    try:
        repository = storage.open_repository(id)
        allowed = repository.readable_by(caller)
    except RepositoryMissing:
        raise UnknownRepository(id, caller) from None
    if not allowed:
        if repository.owned_by(caller):
            raise MissingScope(Scope.HUB_READ)
        raise UnknownRepository(id, caller)
    return repository


Readable = Annotated[Repository, Depends(readable_repository)]


def writable_repository(repository: Readable, caller: KnownCaller) -> Repository:
    return require_owner(repository, caller)


def require_owner(repository: Repository, caller: Owner) -> Repository:
    """Raises Forbidden for anybody but the owner, MissingScope where its token is not for writing."""
    if not repository.owned_by(caller):
        raise Forbidden(
            f"{str(repository.id)!r} belongs to somebody else.",
            way_out="Create a repository in a namespace of your own.",
        )
    require(Scope.HUB_WRITE, caller.rights)
    return repository


Writable = Annotated[Repository, Depends(writable_repository)]
