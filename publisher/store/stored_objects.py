"""Which contents each tenant's repositories in the embedded Hub hold, to count bytes by.

A content that several of a tenant's repositories hold is stored and counted once; one of two tenants counts for both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from publisher.store.database import database_now
from publisher.store.models import StoredObject

#: of a statement's parameters, far below what SQLite takes
_SOME = 500

#: sha256 → bytes
Sizes = Mapping[str, int]


def stored_bytes(session: Session, tenant_id: str) -> int:
    distinct = select(StoredObject.sha256, StoredObject.size).where(StoredObject.tenant_id == tenant_id).distinct()
    return int(session.scalar(select(func.coalesce(func.sum(distinct.subquery().c.size), 0))) or 0)


def bytes_of(session: Session, tenant_id: str, repositories: Collection[str]) -> dict[str, int]:
    """What each of these repositories holds, of all its commits; one that holds nothing is left out."""
    held = select(StoredObject.repository, func.sum(StoredObject.size)).where(
        StoredObject.tenant_id == tenant_id, StoredObject.repository.in_(repositories)
    )
    return {name: int(size) for name, size in session.execute(held.group_by(StoredObject.repository))}


def missing_of_tenant(session: Session, tenant_id: str, sizes: Sizes) -> dict[str, int]:
    """Those that none of the tenant's repositories holds."""
    return _without(session, sizes, StoredObject.tenant_id == tenant_id)


def missing_of_repository(session: Session, repository: str, sizes: Sizes) -> dict[str, int]:
    return _without(session, sizes, StoredObject.repository == repository)


def _without(session: Session, sizes: Sizes, *where: object) -> dict[str, int]:
    known: set[str] = set()
    for some in _in_parts(sizes):
        known.update(session.scalars(select(StoredObject.sha256).where(StoredObject.sha256.in_(some), *where)))  # type: ignore[arg-type]
    return {sha256: size for sha256, size in sizes.items() if sha256 not in known}


def add(session: Session, tenant_id: str, repository: str, sizes: Sizes) -> None:
    """Of contents that the repository did not hold."""
    rows = [
        {"tenant_id": tenant_id, "repository": repository, "sha256": sha256, "size": size}
        for sha256, size in sizes.items()
    ]
    if rows:
        session.execute(insert(StoredObject), rows)


def remove(session: Session, repository: str, digests: Collection[str]) -> None:
    for some in _in_parts(digests):
        gone = delete(StoredObject).where(StoredObject.repository == repository, StoredObject.sha256.in_(some))
        session.execute(gone.execution_options(synchronize_session=False))


def remove_repository(session: Session, repository: str) -> None:
    gone = delete(StoredObject).where(StoredObject.repository == repository)
    session.execute(gone.execution_options(synchronize_session=False))


def older_than(session: Session, repository: str, seconds: float) -> set[str]:
    """sha256 of what the repository is said to hold for longer than that."""
    old = StoredObject.at < database_now() - seconds
    return set(session.scalars(select(StoredObject.sha256).where(StoredObject.repository == repository, old)))


def repositories(session: Session) -> set[str]:
    """Those that are said to hold something for longer than a day."""
    old = StoredObject.at < database_now() - 86_400
    return set(session.scalars(select(StoredObject.repository).where(old).distinct()))


def _in_parts(digests: Collection[str]) -> Iterator[list[str]]:
    found = sorted(digests)
    return (found[start : start + _SOME] for start in range(0, len(found), _SOME))
