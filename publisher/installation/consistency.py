"""Whether the database and the embedded Hub agree: what the one says was published is whole in the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from publisher.errors import PublisherError
from publisher.hub.storage import HubStorage
from publisher.settings import Settings
from publisher.store.publications import PublishedVariant


@dataclass(frozen=True)
class Lack:
    """A publication that is not whole in the Hub, and why: `V: commit C of repository R …`."""

    publication: PublishedVariant
    reason: str

    def __str__(self) -> str:
        it = self.publication
        return f"variant {it.variant_id}: commit {it.commit[:8]} of {it.repo_id!r} is not whole: {self.reason}"


def published_here(
    found: Iterable[PublishedVariant], settings: Settings, storage: HubStorage
) -> list[PublishedVariant]:
    """Those that should lie in this Hub by their address, and those that do: the service may have had another one."""
    return [it for it in found if settings.is_embedded_hub(it.endpoint) or _commit_is_in(storage, it)]


def _commit_is_in(storage: HubStorage, publication: PublishedVariant) -> bool:
    try:
        storage.open_repository(publication.repo_id).commit_id(publication.commit)
    except PublisherError:
        return False
    return True


def lacking(publications: Iterable[PublishedVariant], storage: HubStorage) -> Iterator[Lack]:
    """Those that are not there, or whose files are missing, of another size or known as damaged. Reads no content."""
    for publication in publications:
        reason = _fault(publication, storage)
        if reason is not None:
            yield Lack(publication, reason)


def _fault(publication: PublishedVariant, storage: HubStorage) -> str | None:
    try:
        commit = storage.open_repository(publication.repo_id).commit_at(publication.commit)
    except PublisherError as error:
        return error.message
    for path, file in commit.files.items():
        fault = storage.blobs.fault(file.sha256, file.size)
        if fault is not None:
            return f"{path}: {fault.rstrip('.')}."
    return None


def strangers(storage: HubStorage, tenants: set[str]) -> Iterator[str]:
    """Namespaces and repositories of tenants that the database does not know: nobody can write to them, nor take
    them away."""
    try:
        namespaces = storage.namespaces()
    except OSError:  # said by publisher.hub.checking
        namespaces = []
    for namespace in namespaces:
        try:
            tenant = storage.namespace_tenant(namespace)
        except PublisherError:
            continue  # said by publisher.hub.checking
        if tenant is not None and tenant not in tenants:
            yield f"namespace {namespace!r} belongs to tenant {tenant}, which the database does not know"
    for repository in storage.repositories():
        try:
            tenant = repository.settings.tenant
        except PublisherError:
            continue
        if tenant not in tenants:
            yield f"repository {str(repository.id)!r} belongs to tenant {tenant}, which the database does not know"
