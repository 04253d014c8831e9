"""What a service keeps is its owner's alone, whatever umask it was started with: keys, models, other people's texts."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

#: what the service makes in its data folder; anything else there is somebody else's
_OURS = (
    "publisher.db*",
    "hub",
    "hub.restoring",
    "restoring",
    "stages",
    "broker",
    "secret",
    "secret.*",
    "first-api-key",
)
#: and what its owner puts there to be registered
_OWNERS = ("models", "corpora")


def umask_of(*, group: bool) -> int:
    """For os.umask: nobody else may anything; with `group` members of the folder's group may what the owner may."""
    return 0o007 if group else 0o077


def close_to_others(folder: Path, *, group: bool = False) -> list[Path]:
    """Take away what others may do with the service's things in `folder`, which an earlier version left open.

    The folder itself is closed if it holds nothing else; then there is nothing to do the next time, since all that
    comes later comes under `umask_of`. Returns what belongs to another user, and so stays as it is. Links stay, too.
    """
    if stat.S_IMODE(folder.stat().st_mode) & 0o777 == (0o770 if group else 0o700):
        return []
    names = os.listdir(folder)
    foreign = [path for path in _below(folder, names) if not _close(path, group=group)]
    if all(_is_ours(name) or name in _OWNERS for name in names) and not _close(folder, group=group):
        foreign.append(folder)
    return foreign


def _is_ours(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _OURS)


def _below(folder: Path, names: list[str]) -> Iterator[Path]:
    for path in (folder / name for name in names if _is_ours(name)):
        yield path
        if path.is_dir() and not path.is_symlink():
            for at, folders, files in os.walk(path):
                yield from (Path(at, found) for found in (*folders, *files))


def _close(path: Path, *, group: bool) -> bool:
    """Whether it is closed now, or gone."""
    try:
        found = path.lstat()
        mode = stat.S_IMODE(found.st_mode)
        wanted = mode & ~umask_of(group=group) | ((mode & 0o700) >> 3 if group else 0)
        if wanted != mode and not stat.S_ISLNK(found.st_mode):
            path.chmod(wanted)
    except FileNotFoundError:
        return True
    except PermissionError:
        return False
    return True


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, and for its owner alone; replaces what is there."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
