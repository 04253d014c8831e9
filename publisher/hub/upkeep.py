"""What the Hub does on its own while the API process runs: it collects garbage, and looks for damage."""

from __future__ import annotations

import logging
import threading
import time

from filelock import FileLock, Timeout

from publisher.errors import PublisherError
from publisher.hub.checking import read_contents
from publisher.hub.disk import write_atomically
from publisher.hub.faults import Damaged
from publisher.hub.garbage import GRACE_SECONDS, collect_garbage
from publisher.hub.storage import HubStorage

logger = logging.getLogger(__name__)

PERIOD_SECONDS = 24 * 3600
#: read in a day to look for damage, at no more than half of the disk's speed
SCRUB_BYTES = 64 * 1024**3


class Upkeep:
    """Two threads; several processes may run them over the same storage.

    Garbage is collected at the start, after a deletion, once more when that deletion's grace is over, and daily.
    Damage is looked for at the start and daily, each time in the `scrub_bytes` that follow those of the last time.
    """

    def __init__(
        self, storage: HubStorage, *, period_seconds: float = PERIOD_SECONDS, scrub_bytes: int = SCRUB_BYTES
    ) -> None:
        self._storage = storage
        self._period = period_seconds
        self._scrub_bytes = scrub_bytes
        self._stop = threading.Event()

    def start(self) -> None:
        """Returns at once."""
        for work in (self._collect, self._scrub):
            threading.Thread(target=work, name=f"hub-upkeep{work.__name__}", daemon=True).start()

    def stop(self) -> None:
        """Returns at once; what is in progress can be cut off at any point."""
        self._stop.set()
        self._storage.deleted.set()

    def _collect(self) -> None:
        while not self._stop.is_set():
            after_deletion = self._storage.deleted.is_set()
            self._storage.deleted.clear()
            try:
                removed = collect_garbage(self._storage)
                self._storage.settle_room()
            except (OSError, PublisherError) as error:
                logger.warning("the Hub's garbage was not collected: %s", error)
            else:
                if removed.files:
                    logger.info("removed %d files of %d bytes that no commit has", removed.files, removed.bytes)
            self._storage.deleted.wait(min(GRACE_SECONDS + 1, self._period) if after_deletion else self._period)

    def _scrub(self) -> None:
        while not self._stop.is_set():
            try:
                with FileLock(self._storage.root / "scrub.lock", blocking=False):
                    scrub(self._storage, self._scrub_bytes, self._stop)
            except Timeout:
                pass  # another process is at it
            except (OSError, PublisherError) as error:
                logger.warning("the Hub's files were not checked: %s", error)
            self._stop.wait(self._period)


def scrub(storage: HubStorage, max_bytes: int, stop: threading.Event) -> None:
    """Verifies the blobs that follow the last one of the scrub before, until `max_bytes` are read or all are done.

    Damage is logged as an error and remembered, so that whoever asks for it is told at once.
    """
    contents = read_contents(storage)
    for damage in contents.damage:
        logger.error("%s", damage)
    cursor = storage.root / "scrubbed"
    last = cursor.read_text() if cursor.exists() else ""
    ordered = sorted(contents.blobs, key=lambda sha256: (sha256 <= last, sha256))
    for sha256 in ordered:
        if max_bytes <= 0 or stop.is_set():
            break
        started = time.monotonic()
        try:
            storage.blobs.verify(sha256, contents.blobs[sha256])
        except Damaged as error:
            logger.error("%s: %s", contents.named[sha256], error.message)
        last, max_bytes = sha256, max_bytes - contents.blobs[sha256]
        stop.wait(time.monotonic() - started)
    write_atomically(cursor, last.encode())
