"""How a process knows keys: by their digests under the service's secrets; and what it notes of their use."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from publisher.keys.digests import Digest, KeyDigests
from publisher.settings import Settings
from publisher.store import keys
from publisher.store.database import Database
from publisher.store.faults import why_away
from publisher.store.models import ApiKey, Tenant

_logger = logging.getLogger(__name__)

#: seconds between two writes of what was noted
INTERVAL = 10.0
#: seconds that a process runs before it keeps known keys by new digests: while a service is upgraded machine by
#: machine, those of the version before look for the old ones
SETTLED = 3600.0


def key_secrets(settings: Settings) -> list[bytes]:
    """The secrets under which keys are known, the one for new keys first."""
    return [secret.value for secret in settings.signing_secrets()]


class Doorkeeper:
    """Looks keys up, and writes down their last use and better digests of them, in a thread of its own from `start` to
    `stop`: no request waits for that, and what a process that dies had not written is noted at the next use."""

    def __init__(self, database: Database, secrets: Sequence[bytes], *, settled: float = SETTLED) -> None:
        self.digests = KeyDigests(secrets)
        self._database = database
        self._settles_at = time.monotonic() + settled
        self._lock = threading.Lock()
        #: key's id → when it was last noted, by time.monotonic()
        self._noted: dict[str, float] = {}
        self._used: set[str] = set()
        self._anew: dict[str, Digest] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="doorkeeper", daemon=True)

    @classmethod
    def of(cls, settings: Settings, database: Database) -> Doorkeeper:
        return cls(database, key_secrets(settings))

    def find(self, session: Session, key: str) -> tuple[ApiKey, Tenant] | None:
        """The key's row and its tenant, which may be suspended; None if nobody's, revoked or over."""
        found = keys.key_and_tenant(session, key, self.digests)
        if found is not None:
            self._note(found[0], key)
        return found

    def _note(self, row: ApiKey, key: str) -> None:
        if time.monotonic() >= self._settles_at:
            current = self.digests.current(key)
            if row.digest != current.value:
                with self._lock:
                    self._anew[row.id] = current
        self.note_id(row.id)

    def note_id(self, id: str) -> None:
        """The key with this id is in use."""
        now = time.monotonic()
        with self._lock:
            if now - self._noted.get(id, float("-inf")) >= keys.USE_SECONDS:
                self._noted[id] = now
                self._used.add(id)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when what was noted is written."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            self.write()
        self.write()

    def write(self) -> None:
        """Write what was noted since the last time; while the database is away it waits."""
        with self._lock:
            used, anew = self._used, self._anew
            self._used, self._anew = set(), {}
        if not used and not anew:
            return
        try:
            with self._database.write() as session:
                keys.keep_anew(session, anew)
                keys.note_use(session, used)
        except SQLAlchemyError as error:
            _logger.warning("the last use of keys is noted later: %s", why_away(error))
            with self._lock:
                self._used |= used
                self._anew = anew | self._anew
