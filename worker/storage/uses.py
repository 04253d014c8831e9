"""Which folders of a stage store somebody needs: what a job has asked for stays until the job is over.

<root>/.uses/job_….4711-a1b2c3d4 holds names, one a line, and is locked by the process that wrote it for as long as that
lives. Of a job whose process is gone the database says whether it goes on; everybody else is gone with the process.
"""

from __future__ import annotations

import os
import secrets
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from worker.storage.locks import locked, try_lock

#: (names of users) → those of them that go on although their process is gone
StillWanted = Callable[[frozenset[str]], frozenset[str]]

_FOLDER = ".uses"
_GUARD = ".locks/.uses"


def nobody(users: frozenset[str]) -> frozenset[str]:
    """Of builds on a command line: who gives the command again makes anew what was collected."""
    return frozenset()


class Uses:
    """What `user` needs of the store in `root`; one for each store that a process opens."""

    def __init__(self, root: Path, user: str) -> None:
        self._root, self._user = root, user
        self._noted: set[str] = set()
        self._descriptor: int | None = None

    def note(self, name: str) -> None:
        """From now on `name` is not collected."""
        if name in self._noted:
            return
        with alone(self._root):
            os.write(self._opened(), f"{name}\n".encode())
        self._noted.add(name)

    def _opened(self) -> int:
        if self._descriptor is None:
            folder = self._root / _FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            held = try_lock(folder / f"{self._user}.{os.getpid()}-{secrets.token_hex(4)}")
            assert held is not None, "the name is its own"
            self._descriptor = held.descriptor
            weakref.finalize(self, os.close, held.descriptor)
        return self._descriptor


def alone(root: Path) -> AbstractContextManager[None]:
    """Nobody notes, and nobody collects, within."""
    (root / _GUARD).parent.mkdir(parents=True, exist_ok=True)
    return locked(root / _GUARD)


def wanted(root: Path, still_wanted: StillWanted) -> frozenset[str]:
    """Names of the folders that somebody needs. What nobody needs any more is forgotten. Call it `alone`."""
    files = list((root / _FOLDER).glob("*"))
    held: list[Path] = []
    ended: list[Path] = []
    for file in files:
        (ended if _is_over(file) else held).append(file)
    going_on = still_wanted(frozenset(map(_user_of, ended)))
    for file in ended:
        if _user_of(file) in going_on:
            held.append(file)
        else:
            file.unlink(missing_ok=True)
    return frozenset(name for file in held for name in _names(file))


def _is_over(file: Path) -> bool:
    lock = try_lock(file)
    if lock is None:
        return False
    lock.release()
    return True


def _user_of(file: Path) -> str:
    return file.name.rpartition(".")[0]


def _names(file: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return file.read_text().splitlines()
    return []
