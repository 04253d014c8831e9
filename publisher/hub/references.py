"""Branches and tags: one small file each, which holds a commit id and is replaced atomically."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from urllib.parse import quote, unquote

from publisher.hub.disk import sync_folder, write_atomically
from publisher.hub.faults import RevisionMissing
from publisher.hub.names import check_reference_name, is_reference_name

DEFAULT_BRANCH = "main"


class ReferenceKind(StrEnum):
    BRANCH = "heads"
    TAG = "tags"


class References:
    """Reads need no lock. Writers hold the repository's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, kind: ReferenceKind, name: str) -> str | None:
        """The commit id that the branch or tag points at, or None."""
        if not is_reference_name(name):
            return None
        try:
            return self._path(kind, name).read_text().strip()
        except FileNotFoundError:
            return None

    def require(self, kind: ReferenceKind, name: str) -> str:
        """Like `get`; raises RevisionMissing where there is none."""
        commit = self.get(kind, name)
        if commit is None:
            word = "branch" if kind is ReferenceKind.BRANCH else "tag"
            raise RevisionMissing(f"There is no {word} {name!r}.", field="revision")
        return commit

    def all(self, kind: ReferenceKind) -> dict[str, str]:
        """Name → commit id, sorted by name."""
        folder = self._folder / kind
        names = sorted(unquote(path.name) for path in folder.glob("[!.]*")) if folder.is_dir() else []
        found = {name: self.get(kind, name) for name in names}
        return {name: commit for name, commit in found.items() if commit is not None}

    def move(self, kind: ReferenceKind, name: str, commit: str) -> None:
        """Creates the branch or tag or points it at another commit."""
        write_atomically(self._path(kind, check_reference_name(name)), commit.encode())

    def delete(self, kind: ReferenceKind, name: str) -> None:
        self.require(kind, name)
        path = self._path(kind, name)
        path.unlink()
        sync_folder(path.parent)

    def _path(self, kind: ReferenceKind, name: str) -> Path:
        # Quoted, so that `feature/x` is one file and can stand beside `feature`.
        return self._folder / kind / quote(name, safe="")
