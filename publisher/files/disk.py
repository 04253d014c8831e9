"""How much a disk still holds, and writing that ends on a full one: told apart from every other failure, and said in
people's words."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from publisher.errors import OutOfDisk
from publisher.files.amounts import size

_FULL = {errno.ENOSPC, errno.EDQUOT}
#: what safetensors (Rust) and torch.save say in place of an errno; torch only notices that bytes are missing
_FULL_TEXT = re.compile(
    r"No space left|Disk quota exceeded|os error (28|122)\b|PytorchStreamWriter failed writing"
    r"|inline_container\.cc:\d+\] \. unexpected pos"
)
_TOO_LARGE_TEXT = re.compile(r"File too large|os error 27\b")


@contextmanager
def full_disk_as_fault(what: str, path: Path, way_out: str) -> Iterator[None]:
    """Raise OutOfDisk for whatever a full disk below `path`, a quota or a file-size limit makes libraries raise.

    `what` is written, for the message; `way_out` of a full disk.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        fault = _fault(what, path, way_out, error)
        if fault is None:
            raise
        raise fault from error


def _fault(what: str, path: Path, way_out: str, error: BaseException) -> OutOfDisk | None:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EFBIG or _TOO_LARGE_TEXT.search(str(error)):
        return OutOfDisk(
            f"{what}: a file in {path} grew beyond the largest size that is allowed there.",
            way_out="Raise the process's limit (ulimit -f) or use a file system that takes large files.",
        )
    if number in _FULL or _FULL_TEXT.search(str(error)):
        return OutOfDisk(
            f"{what}: no space left while writing to {path} ({size(free_bytes(path))} free).",
            way_out=way_out,
        )
    return None


def refuse_no_room(what: str, folder: Path, needed: int, way_out: str) -> None:
    """OutOfDisk if `needed` bytes do not fit into `folder`."""
    free = free_bytes(folder)
    if needed > free:
        raise OutOfDisk(f"{what} takes {size(needed)} in {folder}, where {size(free)} are free.", way_out=way_out)


def free_bytes(folder: Path) -> int:
    """That this process may still write below `folder`, which need not exist yet."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free
