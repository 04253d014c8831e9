"""The body of a commit as it arrives: lines for the draft, long contents straight to disk."""

from __future__ import annotations

import base64
import binascii
import re
from types import TracebackType

from publisher.hub.blobs import IncomingBlob
from publisher.hub.drafts import CommitDraft, StoredBlob
from publisher.hub.faults import BadRequest
from publisher.hub.uploads import MAX_INLINE_BYTES

# What is held in memory: a line with a file of 10 MiB. Longer ones must begin as clients write them.
_MAX_LINE_BYTES = 10 * 1024**2 * 4 // 3 + 16 * 1024
_CONTENT_FIRST = re.compile(rb'\s*\{\s*"key"\s*:\s*"file"\s*,\s*"value"\s*:\s*\{\s*"content"\s*:\s*"')


class CommitBody:
    """Takes the body in pieces of any size: `feed` them, then `end`. Memory does not grow with the files.

    A context manager: left without `end`, no half file remains. Raises BadRequest for what cannot be committed.
    """

    def __init__(self, draft: CommitDraft) -> None:
        self._draft = draft
        self._line = bytearray()
        self._content: _Base64Content | None = None
        self._stored: StoredBlob | None = None

    def __enter__(self) -> CommitBody:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._content is not None:
            self._content.abandon()

    def feed(self, piece: bytes) -> None:
        rest = piece
        while rest:
            rest = self._in_line(rest) if self._content is None else self._in_content(self._content, rest)

    def end(self) -> None:
        if self._content is not None:
            raise BadRequest("The commit ends within the content of a file.", way_out="Send it again.")
        self._end_of_line()

    def _in_line(self, piece: bytes) -> bytes:
        """What is left of `piece` after the end of the line, or from where a content goes to disk."""
        part, newline, rest = piece.partition(b"\n")
        self._line += part
        if len(self._line) > _MAX_LINE_BYTES:
            return self._begin_content() + newline + rest
        if newline:
            self._end_of_line()
        return rest

    def _end_of_line(self) -> None:
        line, stored = bytes(self._line), self._stored
        self._line, self._stored = bytearray(), None
        self._draft.add(line, stored)

    def _begin_content(self) -> bytes:
        start = _CONTENT_FIRST.match(self._line)
        if start is None or self._stored is not None:
            raise BadRequest(
                f"A line of the commit has more than {_MAX_LINE_BYTES} bytes.",
                way_out="Upload it as a large file (LFS); the preupload call says which files are.",
            )
        begun = bytes(self._line[start.end() :])
        del self._line[start.end() :]
        self._content = _Base64Content(self._draft.blobs.receive_any(MAX_INLINE_BYTES))
        return begun

    def _in_content(self, content: _Base64Content, piece: bytes) -> bytes:
        part, quote, rest = piece.partition(b'"')
        content.write(part)
        if quote:
            self._stored = content.finish()
            self._content = None
        return quote + rest


class _Base64Content:
    def __init__(self, blob: IncomingBlob) -> None:
        self._blob = blob.__enter__()
        self._open = b""

    def write(self, text: bytes) -> None:
        text = self._open + text
        whole = len(text) // 4 * 4
        self._open = text[whole:]
        self._blob.write(_decoded(text[:whole]))

    def finish(self) -> StoredBlob:
        try:
            self._blob.write(_decoded(self._open))
            return StoredBlob(self._blob.finish(), self._blob.received)
        finally:
            self.abandon()

    def abandon(self) -> None:
        self._blob.__exit__(None, None, None)


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BadRequest(f"The content of a file is not base64: {error}.", field="content") from error
