"""Removing what nothing refers to any more: blobs of deleted repositories, uploads that broke off."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from publisher.hub.storage import HubStorage

# An upload of a large model may take hours until its commit comes.
_GRACE_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Removed:
    files: int
    bytes: int


def collect_garbage(storage: HubStorage, *, grace_seconds: float = _GRACE_SECONDS) -> Removed:
    """Deletes blobs that no commit has, unfinished uploads and rests of deleted repositories.

    Safe while the Hub is running: nothing that was written or asked for in the last `grace_seconds` is touched.
    """
    before = time.time() - grace_seconds
    # First the candidates, then what is used: a commit made in between is seen by the second look.
    candidates = [path for path in _unfinished_or_stored(storage) if _last_used(path) < before]
    used = _used_blobs(storage)
    files = size = 0
    for path in candidates:
        if path.name not in used and _last_used(path) < before:
            size += path.stat().st_size
            path.unlink()
            files += 1
    _empty_trash(storage, before)
    return Removed(files, size)


def _unfinished_or_stored(storage: HubStorage) -> Iterator[Path]:
    yield from storage.blobs.incoming.iterdir()
    yield from storage.blobs.folder.glob("*/*")


def _used_blobs(storage: HubStorage) -> set[str]:
    """sha256 of every file of every commit.

    A large file that was uploaded and never committed is not among them; it must be uploaded again later.
    """
    return {
        file.sha256
        for repository in storage.repositories()
        for commit in repository.all_commits()
        for file in commit.files.values()
    }


def _last_used(path: Path) -> float:
    """Seconds since 1970; now for a file that has just gone, so that it is left alone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _empty_trash(storage: HubStorage, before: float) -> None:
    for folder in storage.trash.iterdir() if storage.trash.is_dir() else ():
        if _last_used(folder) < before:
            shutil.rmtree(folder)
