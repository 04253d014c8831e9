"""Which blobs were found damaged: remembered on disk, so that every process refuses them at once and by name."""

from __future__ import annotations

import os
from pathlib import Path

from publisher.hub.disk import names_in, write_atomically


class DamageRecord:
    """`damaged/<sha256>` says what is wrong, and with which file: a blob that was replaced since is not meant."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def reason(self, sha256: str, found: os.stat_result) -> str | None:
        """What is wrong with the blob whose file is `found` now; None if nothing is known."""
        try:
            identity, _, reason = (self._folder / sha256).read_text(errors="replace").partition("\n")
        except FileNotFoundError:
            return None
        return reason if identity == _identity(found) else None

    def mark(self, sha256: str, found: os.stat_result, reason: str) -> None:
        write_atomically(self._folder / sha256, f"{_identity(found)}\n{reason}".encode())

    def clear(self, sha256: str) -> None:
        (self._folder / sha256).unlink(missing_ok=True)

    def all(self) -> list[str]:
        """The sha256 of every blob that is marked."""
        return names_in(self._folder)


def _identity(found: os.stat_result) -> str:
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
