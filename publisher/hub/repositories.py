"""One repository on disk: settings, branches and tags, commits, and which large files it holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from publisher.errors import InfrastructureFault
from publisher.hub.blobs import BlobStore
from publisher.hub.changes import AddFile, Change, apply_operations
from publisher.hub.commits import Commit, CommittedFile
from publisher.hub.disk import names_in, remove_folder, write_atomically
from publisher.hub.faults import (
    AlreadyExists,
    BadRequest,
    Damaged,
    EntryMissing,
    RepositoryMissing,
    RevisionMissing,
    StaleParent,
)
from publisher.hub.journal import Journal, unwritten
from publisher.hub.names import RepositoryId, check_reference_name, is_commit_id
from publisher.hub.owner import Owner
from publisher.hub.reading import StoredContent
from publisher.hub.references import DEFAULT_BRANCH, ReferenceKind, References, kind_word
from publisher.hub.room import Boundless, Room

# A commit holds the lock for milliseconds; a minute means that something is wrong with the disk or a writer.
_LOCK_TIMEOUT_SECONDS = 60


class RepositorySettings(BaseModel):
    model_config = ConfigDict(frozen=True)

    tenant: str
    private: bool
    created: datetime


@dataclass(frozen=True)
class StoredFile:
    """A file of a commit, and where its bytes lie: `path` is on this machine's disk, to be read only.

    `content` reads the same bytes, checked.
    """

    name: str
    path: Path
    content: StoredContent
    size: int
    sha256: str
    lfs: bool
    etag: str
    commit: str


class Repository:
    """Reading needs no lock: commits never change, and branches move by one atomic rename."""

    def __init__(
        self,
        id: RepositoryId,
        folder: Path,
        lock: Path,
        blobs: BlobStore,
        *,
        journal: Journal = unwritten,
        room: Room | None = None,
    ) -> None:
        self.id = id
        self.blobs = blobs
        self.references = References(folder / "refs")
        self._folder = folder
        self._lock = lock
        self._journal = journal
        self._room: Room = room or Boundless()

    @property
    def settings(self) -> RepositorySettings:
        """Raises RepositoryMissing, or Damaged where they cannot be read."""
        try:
            return RepositorySettings.model_validate_json((self._folder / "repo.json").read_bytes())
        except FileNotFoundError:
            raise RepositoryMissing(f"There is no repository {str(self.id)!r}.", field="repo_id") from None
        except (OSError, ValueError) as error:
            raise self._damaged("its repo.json cannot be read") from error

    def exists(self) -> bool:
        """Not if it was deleted, or its creation was cut short; true where its settings cannot be read."""
        return (self._folder / "repo.json").exists()

    def owned_by(self, owner: Owner | None) -> bool:
        return owner is not None and owner.tenant == self.settings.tenant and owner.reaches(self.id)

    def readable_by(self, owner: Owner | None) -> bool:
        return not self.settings.private or (owner is not None and self.owned_by(owner) and owner.may_read)

    # -- reading

    def commit_id(self, revision: str) -> str:
        """The commit that a branch, a tag or a commit id names; raises RevisionMissing."""
        for kind in ReferenceKind:
            found = self._reference(kind, revision.removeprefix(f"refs/{kind}/"))
            if found is not None:
                return found
        if is_commit_id(revision) and self._commit_path(revision).is_file():
            return revision
        raise RevisionMissing(
            f"{str(self.id)!r} has no revision {revision!r}.",
            field="revision",
            way_out="Use a branch, a tag or a commit id of 40 digits.",
        )

    def _reference(self, kind: ReferenceKind, name: str) -> str | None:
        try:
            return self.references.get(kind, name)
        except ValueError as error:
            raise self._damaged(str(error)) from error

    def _branch(self, name: str) -> str:
        commit = self._reference(ReferenceKind.BRANCH, name)
        if commit is None:
            raise RevisionMissing(f"There is no branch {name!r}.", field="revision")
        return commit

    def reference_commits(self, kind: ReferenceKind) -> dict[str, str]:
        """Branches or tags: name → commit id, sorted by name. Raises Damaged."""
        found = {name: self._reference(kind, name) for name in self.references.names(kind)}
        return {name: commit for name, commit in found.items() if commit is not None}

    def commit_at(self, revision: str) -> Commit:
        return self._read_commit(self.commit_id(revision))

    def history(self, revision: str) -> Iterator[Commit]:
        """Commits from `revision` back to the first."""
        current: str | None = self.commit_id(revision)
        while current is not None:
            commit = self._read_commit(current)
            yield commit
            current = commit.parent

    def resolve(self, revision: str, path: str) -> StoredFile:
        """Finds a file. Raises RevisionMissing or EntryMissing."""
        commit = self.commit_at(revision)
        file = commit.files.get(path)
        if file is None:
            raise EntryMissing(
                f"{str(self.id)!r} has no file {path!r} at {revision!r}.", field="path", commit=commit.id
            )
        return StoredFile(
            name=path,
            path=self.blobs.path(file.sha256),
            content=self.content(path, file),
            size=file.size,
            sha256=file.sha256,
            lfs=file.lfs,
            etag=file.etag,
            commit=commit.id,
        )

    def content(self, path: str, file: CommittedFile) -> StoredContent:
        """What a file of a commit holds."""
        return StoredContent(file.sha256, file.size, f"{path!r} of {str(self.id)!r}", self.blobs)

    def all_commits(self) -> Iterator[Commit]:
        """Every commit that is stored, in no order, also those that no branch leads to.

        Raises Damaged, also for one that is not stored any more although a branch, a tag or a later commit names it.
        """
        read: set[str] = set()
        named: set[str] = set()
        for id in self.commit_ids():
            commit = self._read_commit(id)
            read.add(id)
            named |= {commit.parent} if commit.parent else set()
            yield commit
        for kind in ReferenceKind:
            named |= set(self.reference_commits(kind).values())
        for id in named - read:  # made meanwhile, or lost
            yield self._read_commit(id)

    def commit_ids(self) -> list[str]:
        return [name.removesuffix(".json") for name in names_in(self._folder / "commits")]

    def large_file(self, sha256: str) -> CommittedFile | None:
        """The large file as it can be committed here, or None where it was not uploaded to this repository.

        That another repository has the same blob does not count: knowing a digest must not give access to content.
        """
        size = self._recorded_size(sha256)
        if size is None or not self.blobs.keep(sha256, size):
            return None
        return CommittedFile.large(sha256, size)

    def large_files(self) -> Iterator[str]:
        """sha256 of every large file that was uploaded here, committed or not."""
        yield from names_in(self._folder / "objects")

    def _recorded_size(self, sha256: str) -> int | None:
        """Bytes of a large file that was uploaded here, as they were counted then."""
        try:
            recorded = (self._folder / "objects" / sha256).read_bytes()
        except FileNotFoundError:
            return None
        if recorded.isdigit():
            return int(recorded)
        return self._measured_size(sha256)

    def _measured_size(self, sha256: str) -> int | None:
        """For records that do not say it: the size of the blob, if that is what it is called."""
        size = self.blobs.size(sha256)
        try:
            if size is not None:
                self.blobs.verify(sha256, size)
                self.add_large_object(sha256, size)
        except Damaged:
            return None
        return size

    def copy_records(self, destination: Path) -> bool:
        """All that is known of it but what its files hold, as of one moment. False if it was deleted meanwhile."""
        with self._writing(create=True):
            try:
                shutil.copytree(self._folder, destination, ignore=shutil.ignore_patterns(".*"))
            except FileNotFoundError:
                shutil.rmtree(destination, ignore_errors=True)
                return False
        return True

    # -- writing

    def commit(self, change: Change, confirm: Callable[[], object] = lambda: None) -> Commit:
        """Makes one commit, or none at all. A change that changes nothing gives the head as it is.

        `confirm` is called as the only writer, right before the branch moves, and may raise to forbid it.
        Raises StaleParent if `change.parent` is not the head, RevisionMissing if there is no such branch.
        """
        with self._writing():
            head = self._read_commit(self._branch(change.branch))
            if change.parent is not None and change.parent != head.id:
                raise StaleParent(
                    f"A commit has happened since: {change.branch!r} is at {head.id}, not at {change.parent}.",
                    way_out="Read the head again and repeat the commit on it.",
                )
            files = apply_operations(head.files, change.operations)
            self._keep_added(change)
            self._take_room(change)
            confirm()
            return head if files == head.files else self._append(change, head.id, files)

    def _keep_added(self, change: Change) -> None:
        """No commit names a blob that was collected while its upload was under way."""
        for operation in change.operations:
            if isinstance(operation, AddFile) and not self.blobs.keep(operation.file.sha256, operation.file.size):
                raise BadRequest(
                    f"The content of {operation.path!r} is not stored any more.",
                    field="path",
                    way_out="It was uploaded too long ago: upload and commit it again.",
                )

    def _take_room(self, change: Change) -> None:
        added = [operation.file for operation in change.operations if isinstance(operation, AddFile)]
        self.take_room({file.sha256: file.size for file in added})

    def admit_upload(self) -> None:
        """Of somebody without a token. Raises Suspended where that of the owner would open nothing."""
        self._room.admit(self.settings.tenant)

    def take_room(self, sizes: Mapping[str, int]) -> frozenset[str]:
        """Of contents that come, sha256 → bytes; those that count only from now on. Raises StorageQuotaExceeded."""
        return self._room.take(self.settings.tenant, str(self.id), sizes)

    def give_room_back(self, digests: frozenset[str]) -> None:
        """They did not come."""
        self._room.give_back(str(self.id), frozenset(each for each in digests if self.large_file(each) is None))

    def require_room(self, sizes: Mapping[str, int]) -> None:
        """Before bytes are sent. Raises StorageQuotaExceeded."""
        self._room.require(self.settings.tenant, sizes)

    def sizes(self) -> dict[str, int]:
        """Bytes of every content that a commit has or that was uploaded, by its sha256."""
        found = {file.sha256: file.size for commit in self.all_commits() for file in commit.files.values()}
        uploaded = {sha256: self._recorded_size(sha256) for sha256 in self.large_files() if sha256 not in found}
        return found | {sha256: size for sha256, size in uploaded.items() if size is not None}

    def _append(self, change: Change, parent: str, files: dict[str, CommittedFile]) -> Commit:
        commit = Commit.sealed(
            parent=parent, author=change.author, title=change.title, message=change.message, files=files
        )
        told = {"branch": change.branch, "commit": commit.id, "title": change.title[:200]}
        with self._recorded("hub.commit", **told, operations=len(change.operations)):
            self._publish(commit, change.branch)
        return commit

    def initialise(self, settings: RepositorySettings, author: str) -> None:
        """Writes the empty first commit and, last of all, the settings that make the repository exist."""
        with self._writing(create=True):
            if self.exists():
                raise AlreadyExists(f"Repository {str(self.id)!r} exists already.", field="repo_id")
            first = Commit.sealed(parent=None, author=author, title="initial commit", message="", files={})
            with self._journal("hub.create", str(self.id), settings.tenant, {"private": settings.private}):
                self._publish(first, DEFAULT_BRANCH)
                self._write_settings(settings)

    def delete(self, trash: Path, head: str | None = None) -> None:
        """Gone at once for readers and writers. Raises RepositoryMissing, or StaleParent if it is not at `head`."""
        with self._writing():
            if head is not None and self._branch(DEFAULT_BRANCH) != head:
                raise StaleParent(f"A commit has happened since: {DEFAULT_BRANCH!r} is not at {head}.")
            with self._recorded("hub.delete"):
                remove_folder(self._folder, trash)
            self._room.forget(str(self.id))  # a transaction of its own

    def set_private(self, private: bool) -> None:
        with self._writing():
            if self.settings.private == private:
                return
            with self._recorded("hub.settings", private=private):
                self._write_settings(self.settings.model_copy(update={"private": private}))

    def add_large_object(self, sha256: str, size: int) -> None:
        """Records that the blob of `size` bytes was uploaded to this repository."""
        write_atomically(self._folder / "objects" / sha256, str(size).encode())

    def create_reference(self, kind: ReferenceKind, name: str, revision: str) -> None:
        """Raises AlreadyExists, RevisionMissing, or BadRequest for a name that cannot be."""
        check_reference_name(name)
        with self._writing():
            target = self.commit_id(revision)
            if self._reference(kind, name) is not None:
                raise AlreadyExists(f"{kind_word(kind)} {name!r} exists already.", field="revision")
            with self._recorded("hub.reference.create", kind=kind_word(kind).lower(), name=name, commit=target):
                self.references.move(kind, name, target)

    def delete_reference(self, kind: ReferenceKind, name: str) -> None:
        if kind is ReferenceKind.BRANCH and name == DEFAULT_BRANCH:
            raise BadRequest(f"Branch {DEFAULT_BRANCH!r} is the default and cannot be deleted.", field="revision")
        with self._writing(), self._recorded("hub.reference.delete", kind=kind_word(kind).lower(), name=name):
            self.references.delete(kind, name)

    def _recorded(self, action: str, **details: Any) -> AbstractContextManager[None]:
        return self._journal(action, str(self.id), self.settings.tenant, details)

    @contextmanager
    def _writing(self, *, create: bool = False) -> Iterator[None]:
        """One writer at a time, over all threads and processes."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._lock, timeout=_LOCK_TIMEOUT_SECONDS):
                if not create:
                    _ = self.settings  # deleted while we waited: RepositoryMissing
                yield
        except Timeout as error:
            raise InfrastructureFault(
                f"{str(self.id)!r} is locked by another writer for {_LOCK_TIMEOUT_SECONDS} seconds.",
                way_out="Try again.",
            ) from error

    def _publish(self, commit: Commit, branch: str) -> None:
        # The commit is durable before the branch names it; a crash in between leaves the old head.
        write_atomically(self._commit_path(commit.id), commit.model_dump_json().encode())
        self.references.move(ReferenceKind.BRANCH, branch, commit.id)

    def _write_settings(self, settings: RepositorySettings) -> None:
        write_atomically(self._folder / "repo.json", settings.model_dump_json().encode())

    def _read_commit(self, id: str) -> Commit:
        try:
            return Commit.read(self._commit_path(id).read_bytes(), id)
        except FileNotFoundError as error:
            _ = self.settings  # deleted while we read: RepositoryMissing
            raise self._damaged(f"commit {id} is missing") from error
        except (OSError, ValueError) as error:
            raise self._damaged(f"commit {id} is not what was written: {_first_line(error)}") from error

    def _damaged(self, reason: str) -> Damaged:
        return Damaged(
            f"Repository {str(self.id)!r} is damaged in the Hub's storage: {reason}.",
            way_out="Restore that file of the Hub's folder from a backup. `publisher hub check` lists all damage.",
        )

    def _commit_path(self, id: str) -> Path:
        return self._folder / "commits" / f"{id}.json"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
