"""Writing that ends on a full disk: told apart from every other failure, and said in people's words."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from publisher.errors import OutOfDisk
from publisher.recipe.stages import Stage

_FULL = {errno.ENOSPC, errno.EDQUOT}
#: what safetensors (Rust) and torch.save say in place of an errno; torch only notices that bytes are missing
_FULL_TEXT = re.compile(
    r"No space left|Disk quota exceeded|os error (28|122)\b|PytorchStreamWriter failed writing"
    r"|inline_container\.cc:\d+\] \. unexpected pos"
)
_TOO_LARGE_TEXT = re.compile(r"File too large|os error 27\b")


@contextmanager
def full_disk_as_fault(stage: Stage, path: Path) -> Iterator[None]:
    """Raise OutOfDisk for whatever a full disk below `path`, a quota or a file-size limit makes libraries raise."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        fault = _fault(stage, path, error)
        if fault is None:
            raise
        raise fault from error


def _fault(stage: Stage, path: Path, error: BaseException) -> OutOfDisk | None:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EFBIG or _TOO_LARGE_TEXT.search(str(error)):
        return OutOfDisk(
            f"stage {stage}: a file in {path} grew beyond the largest size that is allowed there.",
            way_out="Raise the process's limit (ulimit -f) or use a file system that takes large files.",
        )
    if number in _FULL or _FULL_TEXT.search(str(error)):
        return OutOfDisk(
            f"stage {stage}: no space left while writing to {path} ({_free_bytes(path)} bytes free).",
            way_out="Free space there or put the data folder on a larger disk; finished stages are kept.",
        )
    return None


def _free_bytes(path: Path) -> int:
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    return shutil.disk_usage(existing).free
