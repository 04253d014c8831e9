"""A commit: the whole list of files, who wrote it, and what came before."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from publisher.hub.git_objects import blob_id, pointer


class CommittedFile(BaseModel):
    """One file of a commit: its content is the blob `sha256`, of `size` bytes."""

    model_config = ConfigDict(frozen=True)

    size: int
    sha256: str
    lfs: bool
    # git's blob id: of the content, or of the LFS pointer
    oid: str

    @classmethod
    def regular(cls, content: bytes, sha256: str) -> CommittedFile:
        return cls(size=len(content), sha256=sha256, lfs=False, oid=blob_id(content))

    @classmethod
    def large(cls, sha256: str, size: int) -> CommittedFile:
        return cls(size=size, sha256=sha256, lfs=True, oid=blob_id(pointer(sha256, size)))

    @property
    def etag(self) -> str:
        """What clients name the file by in their cache."""
        return self.sha256 if self.lfs else self.oid

    @property
    def pointer_size(self) -> int:
        """Bytes of the LFS pointer."""
        return len(pointer(self.sha256, self.size))


class Commit(BaseModel):
    """Immutable; `id` is a sha1 over everything else, so it names content and history."""

    model_config = ConfigDict(frozen=True)

    id: str
    parent: str | None
    author: str
    date: datetime
    title: str
    message: str
    files: dict[str, CommittedFile]

    @classmethod
    def sealed(
        cls, *, parent: str | None, author: str, title: str, message: str, files: dict[str, CommittedFile]
    ) -> Commit:
        """Makes a commit dated now and computes its id."""
        draft = cls(
            id="",
            parent=parent,
            author=author,
            date=datetime.now(UTC),
            title=title,
            message=message,
            files=dict(sorted(files.items())),
        )
        return draft.model_copy(update={"id": _id_of(draft.model_dump_json().encode())})

    @classmethod
    def read(cls, content: bytes, id: str) -> Commit:
        """The commit `id` from its file; ValueError if that is not, to the byte, what was written."""
        if _id_of(content.replace(b'"id":"%s"' % id.encode(), b'"id":""', 1)) != id:
            raise ValueError("its content has another id")
        return cls.model_validate_json(content)


def _id_of(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
