"""Collecting what a stage store need not keep: remains at once, and the longest unused where there is no room.

What a job needs that is not over stays, and what somebody writes. A folder goes out of sight by a rename before its
files are deleted, so a collection may be killed at any point: what counts as finished is whole.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from publisher.errors import OutOfDisk
from publisher.files.amounts import ago, size
from publisher.files.disk import free_bytes
from publisher.recipe.stages import Stage
from worker.storage.locks import try_lock
from worker.storage.survey import Freeing, Item, survey, total_bytes
from worker.storage.uses import StillWanted, alone, nobody, wanted

_DAY = 24 * 3600.0
_TRASH = ".trash"

#: what to do about a full disk
LARGER_DISK = "Free space there or put the data folder on a larger disk; finished stages are kept."


@dataclass(frozen=True)
class Limits:
    """Bytes. `most`: of the whole store, None: as much as the disk holds; `keep_free`: of its disk."""

    most: int | None = None
    keep_free: int = 0


@dataclass(frozen=True)
class Removed:
    """`freed`: bytes, 0 while another name holds all of its files; `why` for people."""

    item: Item
    freed: int
    why: str


@dataclass(frozen=True)
class Upkeep:
    """How room is made in a store: within which limits, and what of it jobs still want. `collects`: by itself."""

    limits: Limits = Limits()
    still_wanted: StillWanted = nobody
    collects: bool = False


def make_room(root: Path, stage: Stage, needed: int, upkeep: Upkeep) -> list[Removed]:
    """Have `needed` bytes for a stage, collecting what has to go for it; what went.

    Raises OutOfDisk, naming what is needed and what is there, if that is not enough.
    """
    removed = []
    if upkeep.collects:
        removed = collect(root, upkeep.limits, room=needed, still_wanted=upkeep.still_wanted)
    free, kept_free = free_bytes(root), upkeep.limits.keep_free
    if needed and needed > free - kept_free:
        reserve = f", {size(kept_free)} of which stay free" if kept_free else ""
        raise OutOfDisk(
            f"stage {stage} needs about {size(needed)} under {root}, {size(free)} are free{reserve}.",
            way_out=LARGER_DISK,
        )
    return removed


def collect(
    root: Path,
    limits: Limits,
    *,
    room: int = 0,
    still_wanted: StillWanted = nobody,
    dry_run: bool = False,
) -> list[Removed]:
    """What was removed (or would be) so that `room` bytes more fit within `limits`, as far as jobs can spare it."""
    items, freeing, removed = survey(root), Freeing(), []
    missing = _missing(root, items, limits, room)
    for item in items:
        if item.remains is None and missing <= 0:
            break
        if not _can_go(root, item, still_wanted, dry_run=dry_run):
            continue
        freed = freeing.without(item)
        missing -= freed
        removed.append(
            Removed(item, freed, item.remains or f"last used {ago(item.used_at, time.time())}, and there is no room")
        )
    if not dry_run:
        _tidy_locks(root)
    return removed


def _missing(root: Path, items: list[Item], limits: Limits, room: int) -> int:
    over = 0 if limits.most is None else total_bytes(items) + room - limits.most
    return max(over, limits.keep_free + room - free_bytes(root))


def _can_go(root: Path, item: Item, still_wanted: StillWanted, *, dry_run: bool) -> bool:
    """Whether it went, or would have. The long work, deleting, is done while others may use the store."""
    with alone(root), _unwritten(root, item) as is_free:
        if not is_free or item.name in wanted(root, still_wanted):
            return False
        doomed = item.path if dry_run else _out_of_sight(root, item.path)
    if not dry_run and doomed is not None:
        _delete(doomed)
    return doomed is not None


@contextmanager
def _unwritten(root: Path, item: Item) -> Iterator[bool]:
    """Whether nobody writes it, nor will within the block."""
    if not item.is_a_stage:
        yield True
        return
    lock = try_lock(root / ".locks" / f"{item.name}.lock")
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()


def _out_of_sight(root: Path, path: Path) -> Path | None:
    """None if somebody else was faster."""
    if path.parent.name == _TRASH:
        return path
    trash = root / _TRASH
    trash.mkdir(exist_ok=True)
    doomed = trash / f"{path.name}.{secrets.token_hex(4)}"
    with suppress(FileNotFoundError):
        path.rename(doomed)
        return doomed
    return None


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _tidy_locks(root: Path) -> None:
    """Of folders that are gone."""
    with alone(root):
        for file in _old_locks(root):
            lock = try_lock(file)
            if lock is not None:
                file.unlink(missing_ok=True)
                lock.release()


def _old_locks(root: Path) -> Iterator[Path]:
    for file in (root / ".locks").glob("*.lock"):
        places = (root / file.stem, root / ".partial" / file.stem)
        if not any(place.exists() for place in places) and time.time() - file.stat().st_mtime > _DAY:
            yield file
