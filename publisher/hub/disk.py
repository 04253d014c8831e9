"""Writing so that a crash leaves either the old file or the new one, never half of it."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from publisher.errors import OutOfDisk


@contextmanager
def disk_full_is_named(folder: Path) -> Iterator[None]:
    """Turns the system's "no space left" into OutOfDisk, which callers may retry after freeing space."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OutOfDisk(f"The disk that holds {folder} is full.", way_out="Free space, then try again.") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces or creates `path`; when this returns, the content survives a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    with disk_full_is_named(path.parent):
        try:
            _write_and_sync(temporary, content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def _write_and_sync(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def names_in(folder: Path) -> list[str]:
    """Names of what lies in `folder`, without unfinished files; none where it does not exist, or not any more."""
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except FileNotFoundError:
        return []


def remove_folder(folder: Path, trash: Path) -> None:
    """Removes `folder` in one step as seen by readers: it is renamed into `trash` before its files are deleted."""
    trash.mkdir(parents=True, exist_ok=True)
    doomed = trash / uuid.uuid4().hex
    folder.rename(doomed)
    sync_folder(folder.parent)
    shutil.rmtree(doomed)
