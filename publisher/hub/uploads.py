"""Which files are uploaded on their own (LFS) and which travel inside the commit."""

from __future__ import annotations

import base64
import binascii
import codecs
from pathlib import PurePosixPath

from publisher.hub.commits import CommittedFile
from publisher.hub.faults import BadRequest
from publisher.hub.protocol import FileMode, FileToUpload

# Half of what a commit accepts for one file, so that base64 and the client's memory stay small.
_LARGE_FROM_BYTES = 5 * 1024**2
# What is binary by its first bytes needs no name here; these are large files even where they look like text.
_LARGE_SUFFIXES = frozenset(
    {".safetensors", ".bin", ".gguf", ".pt", ".pth", ".onnx", ".npy", ".npz", ".parquet", ".png", ".jpg"}
)


def upload_mode(file: FileToUpload, committed: CommittedFile | None) -> FileMode:
    """How to upload a file, and what is committed under its path now."""
    large = file.size > 0 and (
        file.size >= _LARGE_FROM_BYTES
        or PurePosixPath(file.path).suffix.lower() in _LARGE_SUFFIXES
        or _is_binary(file.sample)
    )
    same_kind = committed is not None and committed.lfs == large
    return FileMode(
        path=file.path,
        upload_mode="lfs" if large else "regular",
        oid=committed.etag if committed is not None and same_kind else None,
    )


def _is_binary(sample: str) -> bool:
    """Whether the first bytes, in base64, are something else than UTF-8 text."""
    try:
        content = base64.b64decode(sample)
        # Incremental, since the sample may end in the middle of a character.
        codecs.getincrementaldecoder("utf-8")().decode(content)
    except (binascii.Error, UnicodeDecodeError):
        return True
    return b"\0" in content


def refuse_pull_request(create_pr: str) -> None:
    """Raises BadRequest if the client wants a pull request."""
    if create_pr not in ("", "0", "false", "False"):
        raise BadRequest(
            "This Hub has no pull requests.", field="create_pr", way_out="Commit to a branch with create_pr=False."
        )
