"""Removing what nothing refers to any more: blobs of deleted repositories, uploads that broke off."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from publisher.hub.faults import RepositoryMissing
from publisher.hub.room import UPLOAD_GRACE_SECONDS
from publisher.hub.storage import HubStorage

#: For blobs that no repository waits for: those of deleted repositories, and small files of a commit that is coming in.
GRACE_SECONDS = 3600


@dataclass(frozen=True)
class Removed:
    files: int
    bytes: int


def collect_garbage(
    storage: HubStorage,
    *,
    grace_seconds: float = GRACE_SECONDS,
    upload_grace_seconds: float = UPLOAD_GRACE_SECONDS,
    dry_run: bool = False,
) -> Removed:
    """Deletes blobs that no commit has, unfinished uploads and rests of deleted repositories.

    Safe while the Hub is running: nothing that was written or asked for in the last `grace_seconds` is touched, and
    nothing that was uploaded to a repository which still exists in the last `upload_grace_seconds`. `dry_run` only
    counts. Raises Damaged, before anything is deleted, if a commit cannot be read: what it needs is not known.
    """
    now = time.time()
    before, uploaded_before = now - grace_seconds, now - upload_grace_seconds
    # First the candidates, then what is used: a commit made in between is seen by the second look.
    # whatever else lies there is somebody's who put it there
    stored = [path for path in storage.blobs.folder.glob("*/*") if path.is_file()]
    candidates = [path for path in stored if _last_used(path) < before]
    used, awaited = _used_blobs(storage), _awaited_blobs(storage)
    removed = [
        _remove(storage, path, limit, dry_run=dry_run)
        for path in candidates
        if path.name not in used and _last_used(path) < (limit := uploaded_before if path.name in awaited else before)
    ]
    removed += [
        _remove_unfinished(path, dry_run=dry_run)
        for path in storage.blobs.incoming.iterdir()
        if _last_used(path) < uploaded_before
    ]
    if not dry_run:
        _empty_trash(storage, before)
    return Removed(sum(found is not None for found in removed), sum(found or 0 for found in removed))


def _remove(storage: HubStorage, path: Path, limit: float, *, dry_run: bool) -> int | None:
    """Bytes of a blob that is gone now; None if somebody has asked for it since."""
    # Out of everybody's sight first: whoever asked for it before that has left a trace, who does later uploads again.
    doomed = storage.blobs.incoming / f"{path.name}.garbage"
    with suppress(FileNotFoundError):  # another process collects, too
        if dry_run:
            return path.stat().st_size
        path.rename(doomed)
        found = doomed.stat()
        if found.st_mtime >= limit:
            doomed.rename(path)
            return None
        doomed.unlink()
        storage.blobs.remove(path.name)
        return found.st_size
    return None


def _remove_unfinished(path: Path, *, dry_run: bool) -> int | None:
    with suppress(FileNotFoundError):
        size = path.stat().st_size
        if not dry_run:
            path.unlink()
        return size
    return None


def _used_blobs(storage: HubStorage) -> set[str]:
    """sha256 of every file of every commit.

    A large file that was uploaded and never committed is not among them; it must be uploaded again later.
    """
    used: set[str] = set()
    for repository in storage.repository_folders():
        with suppress(RepositoryMissing):  # deleted meanwhile
            for commit in repository.all_commits():
                used.update(file.sha256 for file in commit.files.values())
    return used


def _awaited_blobs(storage: HubStorage) -> set[str]:
    """sha256 of every large file that was uploaded to a repository, whose commit may still come."""
    return {sha256 for repository in storage.repository_folders() for sha256 in repository.large_files()}


def _last_used(path: Path) -> float:
    """Seconds since 1970; now for a file that has just gone, so that it is left alone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _empty_trash(storage: HubStorage, before: float) -> None:
    for folder in storage.trash.iterdir() if storage.trash.is_dir() else ():
        if _last_used(folder) < before:
            shutil.rmtree(folder, ignore_errors=True)
