"""A commit as it comes in: one JSON object a line, each an operation, the first one a header."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterable, AsyncIterator
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from publisher.hub.changes import AddFile, Change, DeleteFile, DeleteFolder, Operation
from publisher.hub.commits import CommittedFile
from publisher.hub.faults import BadRequest
from publisher.hub.names import check_file_path, check_new_path
from publisher.hub.protocol import Body, Sha256
from publisher.hub.repositories import Repository

# The largest file that is sent inside a commit; larger ones are uploaded beforehand.
MAX_REGULAR_BYTES = 10 * 1024**2
_MAX_LINE_BYTES = MAX_REGULAR_BYTES * 4 // 3 + 16 * 1024
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


async def read_lines(stream: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Lines of a request body, without holding more than one in memory. Raises BadRequest for one that is too long."""
    rest = bytearray()
    async for piece in stream:
        rest += piece
        if b"\n" in piece:
            *whole, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            for line in whole:
                yield line
        if len(rest) > _MAX_LINE_BYTES:
            raise BadRequest(
                f"A file sent inside a commit is larger than {MAX_REGULAR_BYTES} bytes.",
                way_out="Upload it as a large file (LFS); the preupload call says which files are.",
            )
    yield bytes(rest)


class CommitDraft:
    """Collects the operations. Content of small files goes to disk line by line, so memory does not grow."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._header: _Header | None = None
        self._operations: list[Operation] = []

    def add(self, line: bytes) -> None:
        """Raises BadRequest for what cannot be committed: an unsafe path, a large file that was not uploaded."""
        if not line.strip():
            return
        if len(self._operations) >= _MAX_OPERATIONS:
            raise BadRequest(f"A commit has at most {_MAX_OPERATIONS} operations.", way_out="Make several commits.")
        match _parse(line):
            case _HeaderLine(value=header):
                self._header = header
            case _FileLine(value=file):
                self._operations.append(self._regular_file(file))
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
        return AddFile(path, CommittedFile.regular(content, self._repository.blobs.put(content)))

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
