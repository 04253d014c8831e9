"""Listing folders, and looking up single paths."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Form, Request, Response

from publisher.hub.access import CurrentHub, Readable, Segment
from publisher.hub.faults import EntryMissing
from publisher.hub.pages import Cursor, add_next_link
from publisher.hub.protocol import Entry
from publisher.hub.trees import Tree, add_last_commits

router = APIRouter()
_PAGE = 1000


def requested_folder(request: Request) -> str:
    """The rest of the address; "" for the root, which the address leaves out."""
    return unquote(str(request.path_params.get("path", ""))).strip("/")


Folder = Annotated[str, Depends(requested_folder)]


@router.get("/api/models/{namespace}/{name}/tree/{revision}", response_model_exclude_none=True)
@router.get("/api/models/{namespace}/{name}/tree/{revision}/{path:path}", response_model_exclude_none=True)
def list_folder(
    *,
    request: Request,
    response: Response,
    hub: CurrentHub,
    repository: Readable,
    revision: Segment,
    folder: Folder,
    recursive: bool = False,
    expand: bool = False,
    cursor: Cursor = 0,
) -> list[Entry]:
    commit = repository.commit_at(revision)
    tree = Tree(commit)
    if not tree.has_folder(folder):
        raise EntryMissing(f"{str(repository.id)!r} has no folder {folder!r} at {revision!r}.", commit=commit.id)
    entries = tree.inside(folder, recursive=recursive)
    page = entries[cursor : cursor + _PAGE]
    if expand:
        add_last_commits(page, repository.history(commit.id))
    add_next_link(request, response, hub.url(request), cursor + _PAGE if cursor + _PAGE < len(entries) else None)
    return page


@router.post("/api/models/{namespace}/{name}/paths-info/{revision}", response_model_exclude_none=True)
def paths_info(
    repository: Readable,
    revision: Segment,
    paths: Annotated[list[str], Form()],
    expand: Annotated[bool, Form()] = False,
) -> list[Entry]:
    """Paths that do not exist are left out."""
    commit = repository.commit_at(revision)
    tree = Tree(commit)
    found = (tree.find(path.strip("/")) for path in paths)
    entries = [entry for entry in found if entry is not None]
    if expand:
        add_last_commits(entries, repository.history(commit.id))
    return entries
