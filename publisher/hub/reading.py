"""Reading a stored file so that no byte leaves that is not the one that was stored."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from publisher.hub.blobs import BlobStore
from publisher.hub.checksums import BLOCK_BYTES
from publisher.hub.faults import Damaged


@dataclass(frozen=True)
class StoredContent:
    """The content of one file of a repository, equal to any other of the same sha256.

    `size` is in bytes; `name` is what people know it by: "'config.json' of 'alice/model'".
    """

    sha256: str
    size: int = field(compare=False)
    name: str = field(compare=False)
    blobs: BlobStore = field(compare=False, repr=False)

    def require(self) -> None:
        """Raises Damaged for what shows without reading: missing, of another size, found damaged before."""
        fault = self.blobs.fault(self.sha256, self.size)
        if fault is not None:
            raise self._damaged(fault)

    def read(self) -> bytes:
        """All of it, for small files. Raises Damaged."""
        return b"".join(self.blocks(0, self.size))

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        """Bytes `start` to `stop` in pieces of at most a MiB, each one checked before it is given out.

        Raises Damaged at the first block that is not what was stored, and remembers it for the next reader.
        """
        self.require()
        sums = self._checksums()
        try:
            with self.blobs.path(self.sha256).open("rb") as file:
                for number in range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)):
                    first = number * BLOCK_BYTES
                    file.seek(first)
                    block = file.read(min(BLOCK_BYTES, self.size - first))
                    if not self._is_whole(block, number, sums):
                        self.blobs.mark(
                            self.sha256, os.fstat(file.fileno()), reason := f"bytes from {first} on have changed"
                        )
                        raise self._damaged(reason)
                    yield block[max(start - first, 0) : stop - first]
        except FileNotFoundError:
            raise self._damaged("it is missing") from None
        except OSError as error:
            raise self._damaged(f"it cannot be read: {error.strerror}") from error

    def _checksums(self) -> tuple[int, ...]:
        """None are needed for a single block; those of a blob without are made from the whole of it."""
        if self.size <= BLOCK_BYTES:
            return ()
        known = self.blobs.checksums.read(self.sha256, self.size)
        if known is not None:
            return known
        try:
            return self.blobs.verify(self.sha256, self.size)
        except Damaged as error:
            raise self._damaged(self.blobs.fault(self.sha256, self.size) or error.message) from error

    def _is_whole(self, block: bytes, number: int, sums: tuple[int, ...]) -> bool:
        if self.size <= BLOCK_BYTES:
            return hashlib.sha256(block).hexdigest() == self.sha256
        return zlib.crc32(block) == sums[number]

    def _damaged(self, reason: str) -> Damaged:
        return Damaged(
            f"{self.name} is damaged in the Hub's storage: {reason.rstrip('.')}.",
            way_out="Upload the same file again, that repairs it, or restore the Hub's folder from a backup.",
        )
