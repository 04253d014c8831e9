"""Branches and tags: one small file each, which holds a commit id and is replaced atomically."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from urllib.parse import quote, unquote

from publisher.hub.disk import names_in, sync_folder, write_atomically
from publisher.hub.faults import RevisionMissing
from publisher.hub.names import check_reference_name, is_commit_id, is_reference_name

DEFAULT_BRANCH = "main"


class ReferenceKind(StrEnum):
    BRANCH = "heads"
    TAG = "tags"


def kind_word(kind: ReferenceKind) -> str:
    return "Branch" if kind is ReferenceKind.BRANCH else "Tag"


class References:
    """Reads need no lock. Writers hold the repository's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, kind: ReferenceKind, name: str) -> str | None:
        """The commit id that the branch or tag points at, or None. Raises ValueError for a damaged file."""
        if not is_reference_name(name):
            return None
        path = self._path(kind, name)
        try:
            commit = path.read_bytes().strip().decode("ascii", "replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ValueError(
                f"the file of {kind_word(kind).lower()} {name!r} cannot be read: {error.strerror}"
            ) from error
        if not is_commit_id(commit):
            raise ValueError(f"the file of {kind_word(kind).lower()} {name!r} names no commit")
        return commit

    def names(self, kind: ReferenceKind) -> list[str]:
        return sorted(unquote(name) for name in names_in(self._folder / kind))

    def move(self, kind: ReferenceKind, name: str, commit: str) -> None:
        """Creates the branch or tag or points it at another commit."""
        write_atomically(self._path(kind, check_reference_name(name)), commit.encode())

    def delete(self, kind: ReferenceKind, name: str) -> None:
        """Also one that is damaged; raises RevisionMissing where there is none."""
        if not is_reference_name(name) or not self._path(kind, name).is_file():
            raise RevisionMissing(f"There is no {kind_word(kind).lower()} {name!r}.", field="revision")
        path = self._path(kind, name)
        path.unlink()
        sync_folder(path.parent)

    def _path(self, kind: ReferenceKind, name: str) -> Path:
        # Quoted, so that `feature/x` is one file and can stand beside `feature`.
        return self._folder / kind / quote(name, safe="")
