"""Folders: commits only know files, clients also ask for what lies between."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from publisher.hub.commits import Commit, CommittedFile
from publisher.hub.git_objects import tree_ids
from publisher.hub.protocol import Entry, FileEntry, FolderEntry, LastCommit, Pointer


class Tree:
    """Files and folders of one commit."""

    def __init__(self, commit: Commit) -> None:
        self._files = commit.files
        self._folders = _folder_ids(commit.files)

    def find(self, path: str) -> Entry | None:
        """The file or folder of this path."""
        if path in self._files:
            return _file_entry(path, self._files[path])
        if path and path in self._folders:
            return FolderEntry(path=path, oid=self._folders[path])
        return None

    def has_folder(self, path: str) -> bool:
        return path in self._folders

    def inside(self, folder: str, *, recursive: bool) -> list[Entry]:
        """What is in `folder` ("" is the root), sorted by path; with `recursive`, at any depth."""
        prefix = f"{folder}/" if folder else ""
        paths = sorted(path for path in [*self._files, *self._folders] if path and path.startswith(prefix))
        wanted = [path for path in paths if recursive or "/" not in path[len(prefix) :]]
        entries = (self.find(path) for path in wanted)
        return [entry for entry in entries if entry is not None]


def add_last_commits(entries: Iterable[Entry], history: Iterable[Commit]) -> None:
    """Fills in, for each entry, the newest commit that changed it. `history` goes from the entries' commit back."""
    open_entries = {entry.path: entry for entry in entries}
    newer: Commit | None = None
    for commit in history:
        ids = _all_ids(commit.files)
        for path in [path for path, entry in open_entries.items() if ids.get(path) != entry.oid]:
            _set_last_commit(open_entries.pop(path), newer)
        if not open_entries:
            return
        newer = commit
    for entry in open_entries.values():
        _set_last_commit(entry, newer)


def _set_last_commit(entry: Entry, commit: Commit | None) -> None:
    if commit is not None:
        entry.last_commit = LastCommit(id=commit.id, title=commit.title, date=commit.date)


def _all_ids(files: Mapping[str, CommittedFile]) -> dict[str, str]:
    return _folder_ids(files) | {path: file.oid for path, file in files.items()}


def _folder_ids(files: Mapping[str, CommittedFile]) -> dict[str, str]:
    return tree_ids({path: file.oid for path, file in files.items()})


def _file_entry(path: str, file: CommittedFile) -> FileEntry:
    pointer = Pointer(oid=file.sha256, size=file.size, pointer_size=file.pointer_size) if file.lfs else None
    return FileEntry(path=path, size=file.size, oid=file.oid, lfs=pointer)
