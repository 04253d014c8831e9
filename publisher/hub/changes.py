"""What a commit does to the list of files: add, delete a file, delete a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from publisher.hub.commits import CommittedFile
from publisher.hub.faults import BadRequest, EntryMissing
from publisher.hub.names import path_key


@dataclass(frozen=True)
class AddFile:
    path: str
    file: CommittedFile


@dataclass(frozen=True)
class DeleteFile:
    path: str


@dataclass(frozen=True)
class DeleteFolder:
    path: str


Operation = AddFile | DeleteFile | DeleteFolder


@dataclass(frozen=True)
class Change:
    """A commit as it is asked for. `parent` is the head that the writer saw; None accepts any."""

    branch: str
    title: str
    message: str
    author: str
    operations: tuple[Operation, ...]
    parent: str | None = None


def apply_operations(files: Mapping[str, CommittedFile], operations: Sequence[Operation]) -> dict[str, CommittedFile]:
    """The files after all operations, in their order.

    Raises EntryMissing for deleting what is not there, BadRequest where a file would lie inside a file, or where two
    names would be one on a file system that does not tell case or accents apart.
    """
    result = dict(files)
    for operation in operations:
        match operation:
            case AddFile(path, file):
                result[path] = file
            case DeleteFile(path):
                _delete_file(result, path)
            case DeleteFolder(path):
                _delete_folder(result, path)
    _refuse_files_inside_files(result)
    _refuse_look_alikes(result, {operation.path for operation in operations if isinstance(operation, AddFile)})
    return result


def _delete_file(files: dict[str, CommittedFile], path: str) -> None:
    if files.pop(path, None) is None:
        # The first sentence is the one that the client looks for.
        raise EntryMissing(f"A file with this name doesn't exist: {path!r}.", field="path")


def _delete_folder(files: dict[str, CommittedFile], path: str) -> None:
    inside = [name for name in files if name.startswith(f"{path}/")]
    if not inside:
        raise EntryMissing(f"A folder with this name doesn't exist: {path!r}.", field="path")
    for name in inside:
        del files[name]


def _refuse_files_inside_files(files: Mapping[str, CommittedFile]) -> None:
    for path in files:
        parent = path.rpartition("/")[0]
        while parent:
            if parent in files:
                raise BadRequest(
                    f"{path!r} cannot lie in {parent!r}, which is a file.",
                    field="path",
                    way_out="Delete that file in the same commit or use another path.",
                )
            parent = parent.rpartition("/")[0]


def _refuse_look_alikes(files: Mapping[str, CommittedFile], added: set[str]) -> None:
    """Only for what is added: what lies in a repository already does not stop other commits."""
    if not added:
        return
    spellings: dict[str, set[str]] = {}
    for path in files:
        for name in _with_folders(path):
            spellings.setdefault(path_key(name), set()).add(name)
    for path in sorted(added & files.keys()):
        for name in _with_folders(path):
            if others := spellings[path_key(name)] - {name}:
                raise BadRequest(
                    f"{path!r} is the same as {min(others)!r} on file systems that do not tell case or accents apart: "
                    "only one of them could be downloaded there.",
                    field="path",
                    way_out="Rename one of them, or delete the other in the same commit.",
                )


def _with_folders(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]
