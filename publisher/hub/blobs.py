"""Content-addressed storage: every file of every repository is `blobs/ab/<sha256>`, stored once."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from publisher.errors import OutOfDisk
from publisher.hub.checksums import BLOCK_BYTES, BlockChecksums, ChecksumFiles
from publisher.hub.damage import DamageRecord
from publisher.hub.disk import disk_full_is_named, sync_folder, write_atomically
from publisher.hub.faults import Damaged, UploadMismatch


class BlobStore:
    """Blobs never change once they are there. Reading needs no lock, writing the same blob twice does no harm.

    Disks forget, though: what is read is checked (`publisher.hub.reading`), and what was found damaged counts as
    not stored until the same content arrives again.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "blobs"
        self.incoming = root / "incoming"
        self.checksums = ChecksumFiles(root / "sums")
        self.damage = DamageRecord(root / "damaged")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.incoming.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def size(self, sha256: str) -> int | None:
        """Bytes of the blob, or None where it is not stored."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def fault(self, sha256: str, size: int) -> str | None:
        """What is known to be wrong with a blob that should have `size` bytes, without reading it."""
        try:
            found = self.path(sha256).stat()
        except FileNotFoundError:
            return "it is missing"
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        if found.st_size != size:
            return f"it has {found.st_size} bytes instead of {size}"
        return self.damage.reason(sha256, found)

    def keep(self, sha256: str, size: int) -> bool:
        """Whether the blob is stored, of this size and not known to be damaged.

        Marks it as just used, so that collecting garbage spares it for a while.
        """
        if self.fault(sha256, size) is not None:
            return False
        try:
            os.utime(self.path(sha256))
        except FileNotFoundError:
            return False
        return True

    def put(self, content: bytes) -> str:
        """Stores small content and returns its sha256. A damaged blob of the same content is repaired."""
        sha256 = hashlib.sha256(content).hexdigest()
        if not (self.keep(sha256, len(content)) and self._holds(sha256, content)):
            write_atomically(self.path(sha256), content)
            self.damage.clear(sha256)
        return sha256

    def _holds(self, sha256: str, content: bytes) -> bool:
        try:
            return self.path(sha256).read_bytes() == content
        except OSError:
            return False

    def receive(self, sha256: str, size: int) -> IncomingBlob:
        """A blob that arrives in pieces and is only kept if it is what was announced."""
        return IncomingBlob(self, sha256, size)

    def receive_any(self, max_bytes: int) -> IncomingBlob:
        """A blob that arrives in pieces, unannounced, of at most `max_bytes`."""
        return IncomingBlob(self, None, max_bytes)

    def verify(self, sha256: str, size: int, on_bytes: Callable[[int], None] = lambda count: None) -> tuple[int, ...]:
        """Reads the whole blob, also one marked as damaged, and compares its sha256; leaves and returns its checksums.

        `on_bytes` hears how many bytes were read, and may raise to stop. Raises Damaged, and remembers it.
        """
        digest, sums, path = hashlib.sha256(), BlockChecksums(), self.path(sha256)
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                while found.st_size == size and (block := file.read(BLOCK_BYTES)):
                    digest.update(block)
                    sums.update(block)
                    on_bytes(len(block))
        except OSError as error:
            raise Damaged(f"Blob {sha256} is damaged: {self.fault(sha256, size) or error.strerror}.") from error
        if found.st_size != size or digest.hexdigest() != sha256:
            self.mark(sha256, found, f"its bytes have the sha256 {digest.hexdigest()}")
            raise Damaged(f"Blob {sha256} is damaged: {self.fault(sha256, size)}.")
        self.damage.clear(sha256)
        if size > BLOCK_BYTES:
            # they are made again at the next reading if there is no room for them now
            with suppress(OutOfDisk):
                self.checksums.write(sha256, sums.values)
        return sums.values

    def mark(self, sha256: str, read: os.stat_result, reason: str) -> None:
        """Remembers that the file `read` is damaged, unless another has taken its place meanwhile."""
        with suppress(FileNotFoundError, OutOfDisk):
            now = self.path(sha256).stat()
            if now.st_ino == read.st_ino:
                self.damage.mark(sha256, now, reason)

    def remove(self, sha256: str) -> None:
        """What goes with a blob, after the blob itself."""
        self.checksums.remove(sha256)
        self.damage.clear(sha256)


class IncomingBlob:
    """One upload: write the pieces, then `finish`. Left without `finish`, nothing of it remains.

    `sha256` is None for one that was not announced; `size` is then the most that it may have.
    """

    def __init__(self, store: BlobStore, sha256: str | None, size: int) -> None:
        self._store = store
        self._sha256 = sha256
        self._size = size
        self.received = 0
        self._digest = hashlib.sha256()
        self._sums = BlockChecksums()
        self._path = store.incoming / f"{sha256 or 'unannounced'}.{uuid.uuid4().hex}"

    def __enter__(self) -> IncomingBlob:
        self._file = self._path.open("xb")
        return self

    def write(self, piece: bytes) -> None:
        """Appends; raises UploadMismatch as soon as more bytes come than announced."""
        self.received += len(piece)
        if self.received > self._size:
            raise UploadMismatch(
                f"More than the {self._size} bytes that may come arrived for {self._sha256 or 'a file'}.",
                way_out="Upload the file again.",
            )
        self._digest.update(piece)
        self._sums.update(piece)
        with disk_full_is_named(self._store.incoming):
            self._file.write(piece)

    def finish(self) -> str:
        """Checks size and digest and stores the blob durably, in place of a damaged one; returns its sha256.

        Raises UploadMismatch.
        """
        sha256 = self._digest.hexdigest()
        if self._sha256 is not None:
            self._check()
        target = self._store.path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        with disk_full_is_named(self._store.folder):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if self.received > BLOCK_BYTES:
                self._store.checksums.write(sha256, self._sums.values)
            self._path.replace(target)
            sync_folder(target.parent)
        self._store.damage.clear(sha256)
        return sha256

    def _check(self) -> None:
        if self.received != self._size:
            raise UploadMismatch(
                f"{self.received} of the announced {self._size} bytes arrived for {self._sha256}.",
                way_out="Upload the file again.",
            )
        if self._digest.hexdigest() != self._sha256:
            raise UploadMismatch(
                f"The bytes have the sha256 {self._digest.hexdigest()}, not the announced {self._sha256}.",
                way_out="Upload the file again.",
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
