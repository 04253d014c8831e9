"""Branches and tags."""

from __future__ import annotations

from fastapi import APIRouter

from publisher.hub.access import Readable, Segment, Writable
from publisher.hub.protocol import NewBranch, NewTag, ReferenceEntry, ReferenceList
from publisher.hub.references import DEFAULT_BRANCH, ReferenceKind
from publisher.hub.repositories import Repository

router = APIRouter(prefix="/api/models/{namespace}/{name}")


@router.get("/refs")
def list_references(repository: Readable) -> ReferenceList:
    return ReferenceList(
        branches=_entries(repository, ReferenceKind.BRANCH), tags=_entries(repository, ReferenceKind.TAG)
    )


def _entries(repository: Repository, kind: ReferenceKind) -> list[ReferenceEntry]:
    return [
        ReferenceEntry(name=name, ref=f"refs/{kind}/{name}", target_commit=commit)
        for name, commit in repository.reference_commits(kind).items()
    ]


@router.post("/branch/{branch}")
def create_branch(repository: Writable, branch: Segment, body: NewBranch | None = None) -> dict[str, bool]:
    start = body.starting_point if body is not None else None
    repository.create_reference(ReferenceKind.BRANCH, branch, start or DEFAULT_BRANCH)
    return {"success": True}


@router.delete("/branch/{branch}")
def delete_branch(repository: Writable, branch: Segment) -> dict[str, bool]:
    repository.delete_reference(ReferenceKind.BRANCH, branch)
    return {"success": True}


@router.post("/tag/{revision}")
def create_tag(repository: Writable, revision: Segment, body: NewTag) -> dict[str, bool]:
    repository.create_reference(ReferenceKind.TAG, body.tag, revision)
    return {"success": True}


@router.delete("/tag/{tag}")
def delete_tag(repository: Writable, tag: Segment) -> dict[str, bool]:
    repository.delete_reference(ReferenceKind.TAG, tag)
    return {"success": True}
