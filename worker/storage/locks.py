"""Locks that end with their process, however that ends: the kernel's own, on files."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class HeldLock:
    """Until `release`, or until the process is gone."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def release(self) -> None:
        os.close(self.descriptor)


def try_lock(path: Path, *, wait: bool = False) -> HeldLock | None:
    """The lock of this name; None if another process, or thread, has it. With `wait`, when that one is done."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        # whoever tidies up may have taken the file away in between: then the lock is on a file without a name
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return HeldLock(descriptor)
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone on this machine; for what takes milliseconds."""
    held = try_lock(path, wait=True)
    assert held is not None, "whoever waits gets it"
    try:
        yield
    finally:
        held.release()
