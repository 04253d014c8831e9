"""All repositories under one folder. No database: what is on disk is the state.

blobs/ab/<sha256>                          content of every file
sums/ab/<sha256>                           checksums of its blocks, of every file larger than one
damaged/<sha256>                           what was found to be wrong with a blob
incoming/                                  uploads that have not finished
namespaces/<namespace>.json                which tenant a namespace belongs to
repos/<namespace>/<name>/repo.json         owner, private, created; a repository exists once this does
repos/<namespace>/<name>/commits/<id>.json
repos/<namespace>/<name>/refs/heads|tags/<name>
repos/<namespace>/<name>/objects/<sha256>  size of a large file that was uploaded to this repository
locks/  trash/
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from publisher.hub.blobs import BlobStore
from publisher.hub.disk import names_in, write_atomically
from publisher.hub.faults import Damaged, Forbidden, RepositoryMissing
from publisher.hub.grants import Grants
from publisher.hub.journal import Journal, unwritten
from publisher.hub.names import RepositoryId
from publisher.hub.owner import Owner
from publisher.hub.repositories import Repository, RepositorySettings
from publisher.hub.room import Boundless, Room
from publisher.keys.scopes import Scope, require

#: what to do where a namespace is refused
OWN_NAMESPACE = (
    "Use a namespace of your own, or ask the service's operator for this one: "
    "publisher admin tenant grant TENANT NAMESPACE."
)
_logger = logging.getLogger(__name__)


class HubStorage:
    """Opens, creates and deletes repositories. Any number of processes may share `root`.

    `grants` say whose a namespace is; without them the folder's own records do, and nobody's is whoever's comes first.
    `journal` is told of every change, `room` is asked for the bytes that come.
    """

    def __init__(
        self, root: Path, grants: Grants | None = None, *, journal: Journal = unwritten, room: Room | None = None
    ) -> None:
        self.root = root
        self.room: Room = room or Boundless()
        self._grants = grants
        self._journal = journal
        self.blobs = BlobStore(root)
        self.trash = root / "trash"
        #: set when this process has deleted a repository: there may be something to collect
        self.deleted = threading.Event()

    def open_repository(self, repo_id: str | RepositoryId) -> Repository:
        """Raises RepositoryMissing, or BadRequest for what cannot be a repository id."""
        repository = self._at(repo_id if isinstance(repo_id, RepositoryId) else RepositoryId.parse(repo_id))
        _ = repository.settings
        return repository

    def repositories(self) -> Iterator[Repository]:
        """All repositories, sorted by id."""
        for settings in sorted((self.root / "repos").glob("*/*/repo.json")):
            yield self._at(RepositoryId(settings.parent.parent.name, settings.parent.name))

    def repository_folders(self) -> Iterator[Repository]:
        """Whatever lies where repositories do, also what has lost its settings: its commits still need their files."""
        for folder in sorted((self.root / "repos").glob("*/*")):
            if folder.is_dir():
                yield self._at(RepositoryId(folder.parent.name, folder.name))

    def readable_repositories(self, caller: Owner | None) -> Iterator[Repository]:
        """Those that `caller` may see, sorted by id. Whose visibility cannot be read is seen by nobody."""
        return self._those(lambda repository: repository.readable_by(caller))

    def owned_repositories(self, owner: Owner) -> Iterator[Repository]:
        """Those of the owner's tenant that it may see, sorted by id."""
        return self._those(lambda repository: repository.owned_by(owner) and repository.readable_by(owner))

    def _those(self, wanted: Callable[[Repository], bool]) -> Iterator[Repository]:
        for repository in self.repositories():
            try:
                if wanted(repository):
                    yield repository
            except RepositoryMissing:
                continue  # deleted meanwhile
            except Damaged as error:
                _logger.error("%s", error)

    def create_repository(self, id: RepositoryId, owner: Owner, *, private: bool) -> Repository:
        """The namespace becomes the tenant's if it is nobody's and may be taken.

        Raises Forbidden where it may not, is somebody else's, or the token is for another repository, MissingScope, or
        AlreadyExists where the repository exists.
        """
        require(Scope.HUB_WRITE, owner.rights)
        if not owner.reaches(id):
            raise Forbidden(f"This token is for {owner.repository!r} alone, not for {str(id)!r}.", field="repo_id")
        self._claim_namespace(id.namespace, owner)
        repository = self._at(id)
        repository.initialise(
            RepositorySettings(tenant=owner.tenant, private=private, created=datetime.now(UTC)), author=owner.name
        )
        return repository

    def delete_repository(self, id: RepositoryId, head: str | None = None) -> None:
        """Raises RepositoryMissing, and StaleParent if it is no longer at commit `head`, if one is given.

        Blobs stay until garbage is collected, since others may share them.
        """
        self._at(id).delete(self.trash, head)
        self.deleted.set()

    def settle_room(self) -> None:
        """Count anew what the repositories hold. Raises Damaged where that cannot be read, and changes nothing then."""
        held = {}
        for repository in self.repositories():
            with suppress(RepositoryMissing):  # deleted meanwhile
                held[repository.settings.tenant, str(repository.id)] = repository.sizes()
        self.room.settle(held)

    def namespaces(self) -> list[str]:
        """Those that belong to somebody, and those that have repositories, sorted."""
        claimed = {name.removesuffix(".json") for name in names_in(self.root / "namespaces")}
        return sorted(claimed | set(names_in(self.root / "repos")))

    def namespace_tenant(self, namespace: str) -> str | None:
        """The tenant that the namespace belongs to, or None. Raises Damaged."""
        try:
            return str(json.loads(self._namespace_path(namespace).read_bytes())["tenant"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Damaged(
                f"Namespace {namespace!r} is damaged in the Hub's storage: its record cannot be read.",
                way_out="Restore that file of the Hub's folder from a backup.",
            ) from error

    def _claim_namespace(self, namespace: str, owner: Owner) -> None:
        path = self._namespace_path(namespace)
        lock = self.root / "locks" / "namespaces" / f"{namespace}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            self.require_namespace(namespace, owner)
            if self._grants is not None:
                self._grants.take(namespace, owner.tenant)
            if self.namespace_tenant(namespace) != owner.tenant:
                write_atomically(path, json.dumps({"tenant": owner.tenant}).encode())

    def may_use(self, namespace: str, tenant: str) -> bool:
        """Whether the tenant may create repositories there."""
        if self._grants is not None:
            return self._grants.may_use(namespace, tenant, lambda: self.namespace_tenant(namespace))
        return self.namespace_tenant(namespace) in (None, tenant)

    def require_namespace(self, namespace: str, owner: Owner) -> None:
        """Raises Forbidden if it is not the owner's to use."""
        if not self.may_use(namespace, owner.tenant):
            raise Forbidden(
                f"Namespace {namespace!r} belongs to somebody else, or to nobody yet.",
                field="repo_id",
                way_out=OWN_NAMESPACE,
            )

    def _at(self, id: RepositoryId) -> Repository:
        return Repository(id, self._folder(id), self._lock(id), self.blobs, journal=self._journal, room=self.room)

    def _folder(self, id: RepositoryId) -> Path:
        return self.root / "repos" / id.namespace / id.name

    def _lock(self, id: RepositoryId) -> Path:
        return self.root / "locks" / "repositories" / id.namespace / f"{id.name}.lock"

    def _namespace_path(self, namespace: str) -> Path:
        return self.root / "namespaces" / f"{namespace}.json"
