"""Several API machines: what they have to share is looked at when one more starts, before it answers anything.

Every process leaves a file in each folder that all have to share, and a row in the database. Who starts looks for the
files of those whose rows are there: a folder of the same name on another machine does not have them, nor has a copy.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy.exc import SQLAlchemyError

from publisher import __version__
from publisher.errors import RequestFault
from publisher.installation.secret import agree, fingerprints
from publisher.settings import Settings
from publisher.store import presence
from publisher.store.database import Database, clock
from publisher.store.faults import why_away
from publisher.store.models import ServiceProcess

logger = logging.getLogger(__name__)

LOCAL = "local"
_FILES = "processes"
_LOOK_SECONDS = 0.5
#: a process has registered by then, or never will
_FORGET_SECONDS = 3600.0


class Presence:
    """One API process of an installation, from `start` to `stop`."""

    def __init__(self, settings: Settings, database: Database, *, seen_every: float = presence.SEEN_EVERY) -> None:
        self._settings, self._database, self._seen_every = settings, database, seen_every
        self._is_sqlite = database.engine.dialect.name == "sqlite"
        self.id = f"{socket.gethostname()}-{secrets.token_hex(6)}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Raises RequestFault where another process is there that this one cannot work beside.

        One that has not said lately that it is there may have died: it is waited for, half a minute at most.
        """
        self._leave_files()
        with self._database.read() as session:
            began = clock(session)
        while (found := self._register()) is not None:
            other, fault = found
            if other.seen_at > began:
                self._remove_files(self.id)
                raise fault
            time.sleep(_LOOK_SECONDS)
        self._thread.start()

    def stop(self) -> None:
        """The others need not wait for this one to be forgotten."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._remove_files(self.id)
        try:
            with self._database.write() as session:
                presence.remove(session, self.id)
        except SQLAlchemyError as error:
            logger.warning("%s stays noted as running for a while: %s", self.id, why_away(error))

    def _run(self) -> None:
        while not self._stop.wait(self._seen_every):
            try:
                with self._database.write() as session:
                    if not presence.see(session, self.id):
                        presence.add(session, self._row())
            except SQLAlchemyError as error:
                logger.warning("could not note that %s is running: %s", self.id, why_away(error))

    def _register(self) -> tuple[ServiceProcess, RequestFault] | None:
        """Noted as running, or beside whom it cannot, and why."""
        with self._database.write() as session:
            presence.alone(session)
            others = presence.others(session, self.id)
            for other in others:
                fault = self._conflict(other)
                if fault is not None:
                    return other, fault
            presence.add(session, self._row())
        self._forget_files({other.id for other in others})
        return None

    def _row(self) -> ServiceProcess:
        return ServiceProcess(
            id=self.id,
            host=socket.gethostname(),
            version=__version__,
            secrets=" ".join(fingerprints(self._settings)),
            hub=_hub(self._settings),
            broker=_broker(self._settings),
        )

    # -- what has to be shared

    def _conflict(self, other: ServiceProcess) -> RequestFault | None:
        own, at = self._row(), f"the process that runs on {other.host} ({other.version}) over the same database"
        if self._is_sqlite and own.host != other.host:
            return RequestFault(
                f"SQLite is for one machine, and there is {at}.", way_out="Move to PostgreSQL: docs/operations.md."
            )
        if not agree(own.secrets.split(), other.secrets.split()):
            return RequestFault(
                f"PUBLISHER_SECRET is another one than that of {at}: neither would accept what the other signs.",
                way_out="Set the same one everywhere; where none is set, each data folder has one of its own.",
            )
        for name, variable, mine, its, share in (
            ("Hub", "PUBLISHER_HUB_ENDPOINT", own.hub, other.hub, self._settings.hub_dir),
            ("broker", "PUBLISHER_BROKER_URL", own.broker, other.broker, self._settings.data_dir / "broker"),
        ):
            if mine != its:
                return RequestFault(
                    f"The {name} is {_said(mine, share)}, and that of {at} is {_said(its, None)}.",
                    way_out=f"Set {variable} alike everywhere.",
                )
            if mine == LOCAL and not (share / _FILES / other.id).exists():
                return RequestFault(
                    f"The {name} lies in {share}, and so it does for {at}, in a folder of that name of its own: what "
                    "the one takes in the other does not have.",
                    way_out=f"Mount one shared file system there on every machine, or set {variable} to a {name} "
                    "that all reach.",
                )
        return None

    def _shared(self) -> Iterator[Path]:
        if _hub(self._settings) == LOCAL:
            yield self._settings.hub_dir / _FILES
        if _broker(self._settings) == LOCAL:
            yield self._settings.data_dir / "broker" / _FILES

    def _leave_files(self) -> None:
        for folder in self._shared():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / self.id).touch()

    def _remove_files(self, id: str) -> None:
        for folder in self._shared():
            (folder / id).unlink(missing_ok=True)

    def _forget_files(self, running: set[str]) -> None:
        """Of processes that were killed; not of those that are about to register."""
        for folder in self._shared():
            for path in folder.iterdir():
                if path.name not in running | {self.id} and path.stat().st_mtime < time.time() - _FORGET_SECONDS:
                    path.unlink(missing_ok=True)


def _hub(settings: Settings) -> str:
    return LOCAL if settings.hub_endpoint is None else settings.hub_endpoint.rstrip("/")


def _broker(settings: Settings) -> str:
    """Without its password."""
    url = urlsplit(settings.broker_url)
    return LOCAL if url.scheme == "filesystem" else f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"


def _said(place: str, folder: Path | None) -> str:
    if place != LOCAL:
        return place
    return "a local folder" if folder is None else str(folder)
