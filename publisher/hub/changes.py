"""What a commit does to the list of files: add, delete a file, delete a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from publisher.hub.commits import CommittedFile
from publisher.hub.faults import BadRequest, EntryMissing


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


def apply_operations(files: Mapping[str, CommittedFile], operations: Iterable[Operation]) -> dict[str, CommittedFile]:
    """The files after all operations, in their order.

    Raises EntryMissing for deleting what is not there, BadRequest where a file would lie inside a file.
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
