"""Content-addressed storage: every file of every repository is `blobs/ab/<sha256>`, stored once."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path
from types import TracebackType

from publisher.hub.disk import disk_full_is_named, sync_folder, write_atomically
from publisher.hub.faults import UploadMismatch


class BlobStore:
    """Blobs never change once they are there. Reading needs no lock, writing the same blob twice does no harm."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "blobs"
        self.incoming = root / "incoming"
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

    def keep(self, sha256: str) -> bool:
        """Whether the blob is stored. Marks it as just used, so that collecting garbage spares it for a while."""
        try:
            os.utime(self.path(sha256))
        except FileNotFoundError:
            return False
        return True

    def put(self, content: bytes) -> str:
        """Stores small content and returns its sha256."""
        sha256 = hashlib.sha256(content).hexdigest()
        if not self.keep(sha256):
            write_atomically(self.path(sha256), content)
        return sha256

    def receive(self, sha256: str, size: int) -> IncomingBlob:
        """A blob that arrives in pieces and is only kept if it is what was announced."""
        return IncomingBlob(self, sha256, size)


class IncomingBlob:
    """One upload: write the pieces, then `finish`. Left without `finish`, nothing of it remains."""

    def __init__(self, store: BlobStore, sha256: str, size: int) -> None:
        self._store = store
        self._sha256 = sha256
        self._size = size
        self._received = 0
        self._digest = hashlib.sha256()
        self._path = store.incoming / f"{sha256}.{uuid.uuid4().hex}"

    def __enter__(self) -> IncomingBlob:
        self._file = self._path.open("xb")
        return self

    def write(self, piece: bytes) -> None:
        """Appends; raises UploadMismatch as soon as more bytes come than announced."""
        self._received += len(piece)
        if self._received > self._size:
            raise UploadMismatch(
                f"More than the announced {self._size} bytes arrived for {self._sha256}.",
                way_out="Upload the file again.",
            )
        self._digest.update(piece)
        with disk_full_is_named(self._store.incoming):
            self._file.write(piece)

    def finish(self) -> None:
        """Checks size and digest and stores the blob durably; raises UploadMismatch otherwise."""
        self._check()
        target = self._store.path(self._sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        with disk_full_is_named(self._store.folder):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._path.replace(target)
            sync_folder(target.parent)

    def _check(self) -> None:
        if self._received != self._size:
            raise UploadMismatch(
                f"{self._received} of the announced {self._size} bytes arrived for {self._sha256}.",
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
