"""Repositories of the tenant in the embedded Hub: the list, one at a revision, its files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse

from publisher.api.service import CurrentService
from publisher.dashboard.access import Visitor, looking_with
from publisher.dashboard.answers import PageRoute
from publisher.dashboard.listing import PAGE
from publisher.dashboard.settings import settings_page
from publisher.dashboard.usage import download_command
from publisher.errors import NotFound
from publisher.hub.commits import Commit
from publisher.hub.faults import Damaged, RepositoryMissing
from publisher.hub.names import RepositoryId
from publisher.hub.owner import Owner
from publisher.hub.references import DEFAULT_BRANCH, ReferenceKind
from publisher.hub.repositories import Repository
from publisher.hub.sending import send_file
from publisher.hub.storage import HubStorage
from publisher.keys.scopes import Scope
from publisher.manifest.reports import Publication
from publisher.settings import Settings
from publisher.store.database import clock
from publisher.store.models import Variant
from publisher.store.resources import variants_in
from publisher.store.stored_objects import bytes_of

router = APIRouter(prefix="/repositories", route_class=PageRoute)

Reader = Annotated[Visitor, Depends(looking_with(Scope.HUB_READ))]
#: `namespace/name` of the last one on the page before
After = Annotated[str, Query(max_length=200)]
Revision = Annotated[str, Query(max_length=200)]


def embedded_hub(service: CurrentService) -> HubStorage:
    """Raises NotFound where checkpoints are published to a Hub elsewhere."""
    if service.hub is None:
        endpoint = service.settings.resolved_hub_endpoint
        raise NotFound("There is no Hub in this service.", way_out=f"Checkpoints are published to {endpoint}.")
    return service.hub


CurrentHub = Annotated[HubStorage, Depends(embedded_hub)]


@dataclass(frozen=True)
class Entry:
    """A line of the list. `head` is None where the repository is damaged; `size` in bytes, of all commits; `variant` is
    the newest that was published there."""

    name: str
    private: bool
    head: Commit | None
    size: int
    variant: Variant | None


@router.get("")
def repositories(service: CurrentService, hub: CurrentHub, visitor: Reader, after: After = "") -> HTMLResponse:
    last = RepositoryId.parse(after) if after else None
    mine = hub.owned_repositories(_owner(visitor))
    found = list(islice((each for each in mine if last is None or each.id > last), PAGE + 1))
    shown = found[:PAGE]
    with service.database.read() as session:
        names = [str(each.id) for each in shown]
        sizes = bytes_of(session, visitor.tenant_id, names)
        made = _made(variants_in(session, visitor.tenant_id, names), service.settings)
        return settings_page(
            "repositories.html",
            service,
            visitor,
            now=clock(session),
            repositories=list(_entries(shown, sizes, made)),
            endpoint=service.settings.resolved_hub_endpoint,
            after=after,
            next_after=names[-1] if len(found) > PAGE else None,
        )


def _owner(visitor: Visitor) -> Owner:
    return Owner(visitor.tenant_id, visitor.tenant_name, rights=visitor.caller.rights)


def _made(variants: Iterable[Variant], settings: Settings) -> dict[str, list[Variant]]:
    """By repository of the embedded Hub, the newest first."""
    found: dict[str, list[Variant]] = {}
    for row in variants:
        if row.publication and settings.is_embedded_hub(row.publication["endpoint"]):
            found.setdefault(row.publish_repo_id, []).append(row)
    return found


def _entries(shown: Iterable[Repository], sizes: dict[str, int], made: dict[str, list[Variant]]) -> Iterator[Entry]:
    for repository in shown:
        name = str(repository.id)
        try:
            head = _head(repository)
            yield Entry(
                name, repository.settings.private, head, sizes.get(name, 0), next(iter(made.get(name, [])), None)
            )
        except RepositoryMissing:
            continue  # deleted meanwhile


def _head(repository: Repository) -> Commit | None:
    try:
        return repository.commit_at(DEFAULT_BRANCH)
    except Damaged:
        return None


@router.get("/{namespace}/{name}")
def repository(
    namespace: str,
    name: str,
    service: CurrentService,
    hub: CurrentHub,
    visitor: Reader,
    *,
    revision: Revision = DEFAULT_BRANCH,
) -> HTMLResponse:
    """Files as of `revision`, and the commits that led to it."""
    found = _mine(hub, visitor, namespace, name)
    history = list(islice(found.history(revision), PAGE + 1))
    with service.database.read() as session:
        made = _made(variants_in(session, visitor.tenant_id, [str(found.id)]), service.settings)
        return settings_page(
            "repository.html",
            service,
            visitor,
            now=clock(session),
            name=str(found.id),
            private=found.settings.private,
            head=history[0],
            commits=history[:PAGE],
            older=history[PAGE].id if len(history) > PAGE else None,
            revision=revision,
            references={kind: found.reference_commits(kind) for kind in ReferenceKind},
            size=bytes_of(session, visitor.tenant_id, [str(found.id)]).get(str(found.id), 0),
            variants={row.publication["commit"]: row for row in made.get(str(found.id), []) if row.publication},
            command=_command(service.settings, found, history[0]),
        )


def _mine(hub: HubStorage, visitor: Visitor, namespace: str, name: str) -> Repository:
    """Raises RepositoryMissing alike for what is not there and for what is somebody else's, public or not."""
    found = hub.open_repository(RepositoryId.parse(f"{namespace}/{name}"))
    if not found.owned_by(_owner(visitor)):
        raise RepositoryMissing(f"There is no repository {str(found.id)!r}.", field="repo_id")
    return found


def _command(settings: Settings, found: Repository, commit: Commit) -> str:
    endpoint = settings.resolved_hub_endpoint
    return download_command(Publication(endpoint=endpoint, repo_id=str(found.id), commit=commit.id, url=endpoint))


@router.get("/{namespace}/{name}/files/{commit}/{path:path}")
def file(
    namespace: str, name: str, commit: str, path: str, *, request: Request, hub: CurrentHub, visitor: Reader
) -> Response:
    """As the Hub sends it, for a session instead of a token."""
    stored = _mine(hub, visitor, namespace, name).resolve(commit, path)
    headers = {"ETag": f'"{stored.etag}"', "X-Content-Type-Options": "nosniff"}
    return send_file(request, stored.content, headers, path.rpartition("/")[-1])
