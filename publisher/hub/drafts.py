"""A commit as it comes in: one JSON object a line, each an operation, the first one a header."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from publisher.hub.changes import AddFile, Change, DeleteFile, DeleteFolder, Operation
from publisher.hub.commits import CommittedFile
from publisher.hub.faults import BadRequest
from publisher.hub.names import check_file_path, check_new_path
from publisher.hub.protocol import Body, Sha256
from publisher.hub.repositories import Repository
from publisher.hub.uploads import begins_binary, is_large

_MAX_OPERATIONS = 25_000


class _Header(Body):
    summary: str = Field(min_length=1, max_length=10_000)
    description: str = Field(default="", max_length=100_000)
    parent_commit: str | None = None


class _File(Body):
    path: str
    content: str
    encoding: Literal["base64", "utf-8"] = "base64"


class _LargeFile(Body):
    path: str
    oid: Sha256
    # Left out when a file is copied
    size: int | None = None


class _Deleted(Body):
    path: str


class _HeaderLine(Body):
    key: Literal["header"]
    value: _Header


class _FileLine(Body):
    key: Literal["file"]
    value: _File


class _LargeFileLine(Body):
    key: Literal["lfsFile"]
    value: _LargeFile


class _DeletedFileLine(Body):
    key: Literal["deletedFile"]
    value: _Deleted


class _DeletedFolderLine(Body):
    key: Literal["deletedFolder"]
    value: _Deleted


_Line = Annotated[
    _HeaderLine | _FileLine | _LargeFileLine | _DeletedFileLine | _DeletedFolderLine, Field(discriminator="key")
]
_LINE: TypeAdapter[_Line] = TypeAdapter(_Line)


@dataclass(frozen=True)
class StoredBlob:
    """`size` in bytes."""

    sha256: str
    size: int


class CommitDraft:
    """Collects the operations. Content of small files goes to disk line by line, so memory does not grow."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.blobs = repository.blobs
        self._header: _Header | None = None
        self._operations: list[Operation] = []

    def add(self, line: bytes, stored: StoredBlob | None = None) -> None:
        """`stored` is the content of the line's file if that has gone to disk already, and is empty in the line.

        Raises BadRequest for what cannot be committed: an unsafe path, a large file that was not uploaded."""
        if not line.strip():
            return
        if len(self._operations) >= _MAX_OPERATIONS:
            raise BadRequest(f"A commit has at most {_MAX_OPERATIONS} operations.", way_out="Make several commits.")
        match _parse(line):
            case _HeaderLine(value=header):
                self._header = header
            case _FileLine(value=file):
                self._operations.append(
                    self._regular_file(file) if stored is None else self._inline_file(file.path, stored)
                )
            case _LargeFileLine(value=file):
                self._operations.append(self._large_file(file))
            case _DeletedFileLine(value=deleted):
                self._operations.append(DeleteFile(check_file_path(deleted.path)))
            case _DeletedFolderLine(value=deleted):
                self._operations.append(DeleteFolder(check_file_path(deleted.path.rstrip("/"))))

    def change(self, *, branch: str, author: str) -> Change:
        """The whole commit; raises BadRequest where the header is missing."""
        if self._header is None:
            raise BadRequest("The commit has no header line.", way_out='Send {"key": "header", "value": …} first.')
        return Change(
            branch=branch,
            title=self._header.summary,
            message=self._header.description,
            author=author,
            operations=tuple(self._operations),
            parent=self._header.parent_commit,
        )

    def _regular_file(self, file: _File) -> AddFile:
        path = check_new_path(file.path)
        try:
            content = file.content.encode()
            if file.encoding == "base64":
                content = base64.b64decode(content, validate=True)
        except binascii.Error as error:
            raise BadRequest(f"The content of {path!r} is not base64: {error}.", field="content") from error
        sha256 = self._repository.blobs.put(content)
        if is_large(path, len(content), lambda: begins_binary(content)):
            return self._inline_file(path, StoredBlob(sha256, len(content)))
        return AddFile(path, CommittedFile.regular(content, sha256))

    def _inline_file(self, path: str, stored: StoredBlob) -> AddFile:
        """A large file that came inside the commit: from here on it is one like any other."""
        check_new_path(path)
        self._repository.add_large_object(stored.sha256, stored.size)
        return AddFile(path, CommittedFile.large(stored.sha256, stored.size))

    def _large_file(self, file: _LargeFile) -> AddFile:
        path = check_new_path(file.path)
        found = self._repository.large_file(file.oid)
        if found is None:
            raise BadRequest(
                f"The large file {path!r} ({file.oid}) was not uploaded to {str(self._repository.id)!r}.",
                field="oid",
                way_out="Upload it, then commit.",
            )
        if file.size not in (None, found.size):
            raise BadRequest(f"The large file {path!r} has {found.size} bytes, not {file.size}.", field="size")
        return AddFile(path, found)


def _parse(line: bytes) -> _Line:
    try:
        return _LINE.validate_json(line)
    except ValidationError as error:
        # Only place and reason: the input may be megabytes of somebody's file.
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise BadRequest(f"A line of the commit cannot be read: {where}: {problem['msg']}.") from error
