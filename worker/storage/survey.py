"""What lies in a stage store: how large it is, when it was last used, and what is a mere remain."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from worker.storage.folder import RECORD, STATE, read_record

#: a training state that nobody has come back to for so long
ABANDONED_SECONDS = 24 * 3600.0
#: what may be made anew at any time is left to whoever has just asked for it
KEPT_SECONDS = 3600.0

_STAGE, _HALF = "stage", "half-written stage"

_Inode = tuple[int, int]


@dataclass(frozen=True)
class OnDisk:
    """A file's bytes, how many names it has anywhere, and how many of them lie in one item."""

    size: int
    names: int
    names_here: int


@dataclass(frozen=True)
class Item:
    """`name`: by which a job notes that it needs it. `remains`: why nobody can need it; None for what is collected only
    where there is no room. `used_at` in seconds since 1970."""

    path: Path
    name: str
    what: str
    used_at: float
    files: Mapping[_Inode, OnDisk]
    remains: str | None = None

    @property
    def is_a_stage(self) -> bool:
        """Finished or half-written: whoever writes it holds the lock of its name."""
        return self.what in {_STAGE, _HALF}

    @property
    def age(self) -> float:
        """Seconds since it was last used."""
        return time.time() - self.used_at


class Freeing:
    """How many bytes come free while items go, one after the other: a file's do with the last of its names."""

    def __init__(self) -> None:
        self._gone: Counter[_Inode] = Counter()

    def without(self, item: Item) -> int:
        """What goes with this one, after those before it."""
        self._gone.update({inode: file.names_here for inode, file in item.files.items()})
        return sum(file.size for inode, file in item.files.items() if self._gone[inode] == file.names)


def survey(root: Path) -> list[Item]:
    """Everything that may be collected: remains first, then the longest unused."""
    found = [*_trash(root), *_finished(root), *_partial(root), *_kept(root)]
    return sorted(found, key=lambda item: (item.remains is None, item.used_at))


def total_bytes(items: Iterable[Item]) -> int:
    """A file with several names counts once."""
    return sum({inode: file.size for item in items for inode, file in item.files.items()}.values())


def _trash(root: Path) -> Iterator[Item]:
    for path in _inside(root / ".trash"):
        yield replace(_item(path, "trash"), remains="a collection of it was cut off")


def _finished(root: Path) -> Iterator[Item]:
    for path in _inside(root):
        if not path.name.startswith(".") and path.is_dir():
            item = _item(path, _STAGE)
            yield item if read_record(path) else replace(item, remains="it is not whole any more")


def _partial(root: Path) -> Iterator[Item]:
    """Of one whose process is gone only the state is of use, to whoever goes on with it."""
    for path in _inside(root / ".partial"):
        item = _item(path, _HALF)
        if not (path / STATE).exists():
            item = replace(item, remains="its process is gone")
        elif item.age > ABANDONED_SECONDS:
            item = replace(item, remains=f"nobody has gone on with it for {item.age / 3600:.0f} hours")
        yield item


def _kept(root: Path) -> Iterator[Item]:
    for room in _inside(root / ".kept"):
        for path in _inside(room) if room.is_dir() else [room]:
            item = _item(path, f"kept {room.name}")
            if item.age > KEPT_SECONDS:
                yield replace(item, remains="it was never finished") if ".partial" in path.name else item


def _item(path: Path, what: str) -> Item:
    found: dict[_Inode, OnDisk] = {}
    newest = 0.0
    for seen in _stats(path):
        inode = (seen.st_dev, seen.st_ino)
        before = found[inode].names_here if inode in found else 0
        found[inode] = OnDisk(seen.st_size, seen.st_nlink, before + 1)
        newest = max(newest, seen.st_mtime)
    record = path / RECORD
    used_at = record.stat().st_mtime if record.is_file() else newest
    return Item(path, path.name, what, used_at, found)


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Of the files below, or of the file; what a link points to is somebody else's."""
    below = [path] if path.is_symlink() or not path.is_dir() else path.rglob("*")
    for one in below:
        try:
            found = one.lstat()
            is_folder = one.is_dir() and not one.is_symlink()
        except FileNotFoundError:
            continue
        if not is_folder:
            yield found


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
