"""Which files are uploaded on their own (LFS) and which travel inside the commit."""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Callable
from pathlib import PurePosixPath

from publisher.hub.commits import CommittedFile
from publisher.hub.faults import BadRequest
from publisher.hub.protocol import FileMode, FileToUpload

_LARGE_FROM_BYTES = 5 * 1024**2
#: Of a file, as clients look at it.
SAMPLE_BYTES = 512
#: What huggingface_hub itself puts into one commit at most (its REGULAR_CONTENT_BYTES_BUDGET).
MAX_INLINE_BYTES = 100 * 1024**2
#: How our workers call themselves.
OWN_CLIENT = "loram-publisher"
_CLIENT = re.compile(r"\bhf_hub/(\d{1,4})\.(\d{1,4})")
_XET_ONLY = (1, 20)
# What is binary by its first bytes needs no name here; these are large files even where they look like text.
_LARGE_SUFFIXES = frozenset(
    {".safetensors", ".bin", ".gguf", ".pt", ".pth", ".onnx", ".npy", ".npz", ".parquet", ".png", ".jpg"}
)


def upload_mode(file: FileToUpload, committed: CommittedFile | None, *, inline_bytes: int = 0) -> FileMode:
    """How to upload a file, and what is committed under its path now.

    Of large files, those of at most `inline_bytes` travel inside the commit all the same.
    """
    large = is_large(file.path, file.size, lambda: _is_binary(file.sample))
    same_kind = committed is not None and committed.lfs == large
    apart = large and file.size > inline_bytes
    return FileMode(
        path=file.path,
        upload_mode="lfs" if apart else "regular",
        # Clients compare it with the sha256 of what they upload on its own, with git's id of what goes into the commit.
        oid=committed.etag if committed is not None and same_kind and large == apart else None,
    )


def is_large(path: str, size: int, is_binary: Callable[[], bool]) -> bool:
    """Whether a file is kept and listed as a large one, by its sha256, however it arrives."""
    if size == 0:
        return False
    return size >= _LARGE_FROM_BYTES or PurePosixPath(path).suffix.lower() in _LARGE_SUFFIXES or is_binary()


def inline_limit(user_agent: str) -> int:
    """Up to which size (bytes) a client should send its large files inside the commit.

    From 1.20 on, huggingface_hub sends large files through Xet or not at all, unless it was told otherwise before it
    was imported. It does not say which, so all of them get by without, as far as their memory goes: they hold a commit
    several times over. Our own workers switch Xet off, and say who they are.
    """
    found = _CLIENT.search(user_agent)
    if found is None or OWN_CLIENT in user_agent:
        return 0
    version = (int(found[1]), int(found[2]))
    return MAX_INLINE_BYTES if version >= _XET_ONLY else 0


def _is_binary(sample: str) -> bool:
    """Whether the first bytes, in base64, are something else than UTF-8 text."""
    try:
        return begins_binary(base64.b64decode(sample))
    except binascii.Error:
        return True


def begins_binary(content: bytes) -> bool:
    """Whether the first bytes of a file are something else than UTF-8 text."""
    try:
        # Incremental, since they may end in the middle of a character.
        codecs.getincrementaldecoder("utf-8")().decode(content[:SAMPLE_BYTES])
    except UnicodeDecodeError:
        return True
    return b"\0" in content[:SAMPLE_BYTES]


def refuse_pull_request(create_pr: str) -> None:
    """Raises BadRequest if the client wants a pull request."""
    if create_pr not in ("", "0", "false", "False"):
        raise BadRequest(
            "This Hub has no pull requests.", field="create_pr", way_out="Commit to a branch with create_pr=False."
        )
