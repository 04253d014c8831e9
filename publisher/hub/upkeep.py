"""Collects the Hub's garbage once a day, for as long as the API process runs."""

from __future__ import annotations

import logging
import threading

from publisher.hub.garbage import collect_garbage
from publisher.hub.storage import HubStorage

logger = logging.getLogger(__name__)

PERIOD_SECONDS = 24 * 3600


class Upkeep:
    """A thread; several processes may run one over the same storage."""

    def __init__(self, storage: HubStorage, *, period_seconds: float = PERIOD_SECONDS) -> None:
        self._storage = storage
        self._period = period_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hub-upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns at once; a collection in progress can be cut off at any point."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            try:
                removed = collect_garbage(self._storage)
            except OSError as error:
                logger.warning("the Hub's garbage was not collected: %s", error)
            else:
                logger.info("removed %d files of %d bytes that no commit has", removed.files, removed.bytes)
