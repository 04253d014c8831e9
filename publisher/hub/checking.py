"""Looking for damage before somebody downloads it: every record, and every blob against its sha256."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from publisher.hub.faults import Damaged, RepositoryMissing, RevisionMissing
from publisher.hub.references import DEFAULT_BRANCH, ReferenceKind, kind_word
from publisher.hub.repositories import Repository
from publisher.hub.storage import HubStorage

#: hears bytes done and bytes in all; may raise to stop
OnProgress = Callable[[int, int], None]


@dataclass
class Contents:
    """What the Hub's records say should be there.

    `blobs`: sha256 → bytes; `named`: sha256 → one of the files that have it; `damage`: records that cannot be read.
    """

    blobs: dict[str, int] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Checked:
    """`damage` has a sentence for each damaged or missing thing, records first."""

    blobs: int
    bytes: int
    damage: tuple[str, ...]


def check_storage(storage: HubStorage, on_progress: OnProgress = lambda done, total: None) -> Checked:
    """Reads everything that commits have. Damaged blobs are remembered as such; those that are whole again are not."""
    contents = read_contents(storage)
    total, done, damage = sum(contents.blobs.values()), 0, list(contents.damage)

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, total)

    for sha256, size in contents.blobs.items():
        try:
            storage.blobs.verify(sha256, size, advance)
        except Damaged as error:
            damage.append(f"{contents.named[sha256]}: {error.message}")
    return Checked(len(contents.blobs), total, tuple(damage))


def read_contents(storage: HubStorage) -> Contents:
    """Every namespace's owner, and every repository's settings, branches, tags and commits."""
    contents = Contents()
    contents.damage += _as_far_as_read("The Hub's namespaces", _namespaces(storage))
    for repository in storage.repository_folders():
        for look in (_settings, _references, _commits):
            contents.damage += _as_far_as_read(f"Repository {str(repository.id)!r}", look(repository, contents))
    return contents


def _as_far_as_read(what: str, found: Iterator[str]) -> Iterator[str]:
    """What is damaged; what a disk does not give out is so, too, and the rest is looked at all the same."""
    try:
        yield from found
    except OSError as error:
        yield f"{what}: {error.filename} cannot be read: {error.strerror}."


def _namespaces(storage: HubStorage) -> Iterator[str]:
    for namespace in storage.namespaces():
        try:
            if storage.namespace_tenant(namespace) is None:
                yield f"Namespace {namespace!r} is damaged in the Hub's storage: its record is missing."
        except Damaged as error:
            yield error.message


def _settings(repository: Repository, contents: Contents) -> Iterator[str]:
    try:
        _ = repository.settings
    except RepositoryMissing:
        # a creation that was cut short has left the empty first commit, and can be done again
        if len(repository.commit_ids()) > 1:
            yield f"Repository {str(repository.id)!r} is damaged in the Hub's storage: its repo.json is missing."
    except Damaged as error:
        yield error.message


def _references(repository: Repository, contents: Contents) -> Iterator[str]:
    if DEFAULT_BRANCH not in repository.references.names(ReferenceKind.BRANCH) and repository.exists():
        yield f"Repository {str(repository.id)!r} is damaged in the Hub's storage: branch 'main' is missing."
    for kind in ReferenceKind:
        for name in repository.references.names(kind):
            try:
                repository.commit_at(f"refs/{kind}/{name}")
            except Damaged as error:
                yield f"{kind_word(kind)} {name!r}: {error.message}"
            except (RepositoryMissing, RevisionMissing):
                continue  # deleted meanwhile, or said by its settings


def _commits(repository: Repository, contents: Contents) -> Iterator[str]:
    parents: dict[str, str] = {}
    ids = repository.commit_ids()
    for id in ids:
        try:
            commit = repository.commit_at(id)
        except Damaged as error:
            yield error.message
            continue
        except RepositoryMissing:
            return
        if commit.parent is not None:
            parents[commit.parent] = id
        for path, file in commit.files.items():
            contents.blobs[file.sha256] = file.size
            contents.named[file.sha256] = f"{path!r} of {str(repository.id)!r} at {id[:8]}"
    for lost in parents.keys() - set(ids):
        try:
            repository.commit_at(lost)  # made meanwhile?
        except RevisionMissing:
            yield f"Repository {str(repository.id)!r} is damaged in the Hub's storage: commit {lost} is missing."
        except (Damaged, RepositoryMissing):
            continue  # said with the others the next time, or deleted meanwhile
