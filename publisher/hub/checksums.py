"""Checksums of a large file's blocks, so that a part of it can be read and checked without reading all of it.

`sums/ab/<sha256>` holds a CRC-32 of each MiB of the blob and one of the file itself: enough against disks that forget.
Against everything else there is the sha256, which is compared when the blob arrives and whenever it is checked whole.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from publisher.hub.disk import write_atomically

#: bytes that are read, checked and sent at a time; a hop to a thread for each costs little at this size
BLOCK_BYTES = 1024**2


class BlockChecksums:
    """Takes a file in pieces of any size; `values` are the CRC-32 of its blocks."""

    def __init__(self) -> None:
        self._whole: list[int] = []
        self._open = 0
        self._filled = 0

    def update(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            part = rest[: BLOCK_BYTES - self._filled]
            self._open = zlib.crc32(part, self._open)
            self._filled += len(part)
            if self._filled == BLOCK_BYTES:
                self._whole.append(self._open)
                self._open = self._filled = 0
            rest = rest[len(part) :]

    @property
    def values(self) -> tuple[int, ...]:
        return (*self._whole, self._open) if self._filled else tuple(self._whole)


class ChecksumFiles:
    """One small file beside each blob of more than one block. One that is lost or damaged is made again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def read(self, sha256: str, size: int) -> tuple[int, ...] | None:
        """Those of a blob of `size` bytes; None where there are none that can be trusted."""
        count = -(-size // BLOCK_BYTES)
        try:
            content = self.path(sha256).read_bytes()
        except OSError:
            return None
        if len(content) != 4 * (count + 1):
            return None
        *values, own = struct.unpack(f">{count + 1}I", content)
        return tuple(values) if zlib.crc32(content[:-4]) == own else None

    def write(self, sha256: str, values: Sequence[int]) -> None:
        content = struct.pack(f">{len(values)}I", *values)
        write_atomically(self.path(sha256), content + struct.pack(">I", zlib.crc32(content)))

    def remove(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)
