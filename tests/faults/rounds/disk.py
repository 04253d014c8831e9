"""A full disk: a file system of its own where that may be mounted, otherwise limits on what processes may write."""

from __future__ import annotations

import resource
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_BYTES = 2**30
_PAGE = 4096
#: of a file that a process with a limit may write: enough for a log's line, too little for weights
_LIMIT = 4096

Processes = Callable[[], list[psutil.Process]]


class Disk(ABC):
    """Where an installation keeps its data."""

    @abstractmethod
    def fill(self) -> None: ...

    @abstractmethod
    def free(self) -> None: ...


class MountedDisk(Disk):
    """A tmpfs that shrinks to what lies in it: whoever writes sees ENOSPC, at once and without filling any memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fill(self) -> None:
        used = shutil.disk_usage(self._folder).used
        self._resize(used + _PAGE)

    def free(self) -> None:
        self._resize(_BYTES)

    def _resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self._folder)], check=True, capture_output=True)


class LimitedFiles(Disk):
    """RLIMIT_FSIZE of every process: whoever writes a large file sees EFBIG."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def fill(self) -> None:
        self._limit(_LIMIT)

    def free(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        for process in self._processes():
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                process.rlimit(psutil.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@contextmanager
def disk_for(folder: Path, processes: Processes) -> Iterator[Disk]:
    """`folder`, made, on a file system of its own if this process may mount one."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_BYTES}", "publisher-faults", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        yield LimitedFiles(processes)
        return
    try:
        yield MountedDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
