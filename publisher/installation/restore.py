"""From a backup to an installation that serves: into an empty database and a data folder without a Hub.

While it is under way a file `restoring` lies in the data folder, and no process of the service starts there. What was
cut short is done by doing it again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from sqlalchemy import Connection

from publisher.errors import InfrastructureFault, RequestFault
from publisher.files.private import write_private
from publisher.hub.disk import disk_full_is_named
from publisher.hub.storage import HubStorage
from publisher.installation.consistency import Lack, lacking, published_here
from publisher.installation.contents import copy_content
from publisher.installation.record import DATABASE, HUB, SECRET, Backup, Progress, Record
from publisher.installation.secret import fingerprints
from publisher.jobs.transitions import release_all
from publisher.settings import Settings
from publisher.store import migrate, presence
from publisher.store.database import Database
from publisher.store.dump import read_rows
from publisher.store.private import RESTORING
from publisher.store.publications import published_variants


class Restoring:
    """`backup` to where `settings` say; `new_secret`: go on with another signing secret than the service had."""

    def __init__(self, settings: Settings, backup: Backup, *, new_secret: bool) -> None:
        self._settings, self._backup, self._new_secret = settings, backup, new_secret
        self._url = settings.resolved_database_url
        self._marker = settings.data_dir / RESTORING
        self._partial = settings.data_dir / "hub.restoring"

    def run(self, on_bytes: Progress) -> Record:
        """Returns what was restored.

        Raises RequestFault for a place in use or another secret, InfrastructureFault for a damaged backup: then nothing
        is changed, or the place is refused by the service until it is restored.
        """
        record = self._backup.record()
        self._backup.check_files()
        self._refuse_other_place(record)
        self._settings.data_dir.mkdir(parents=True, exist_ok=True)
        again = self._begin()
        with disk_full_is_named(self._settings.data_dir):
            if record.has_hub:
                self._restore_hub(record, on_bytes)
            self._restore_secret()
            if not (again and self._is_filled()):
                migrate.rebuild(self._url, record.revision, lambda connection: self._fill(connection, record))
        migrate.upgrade(self._url)
        self._check(record)
        os.sync()
        self._marker.unlink()
        return record

    # -- before

    def _refuse_other_place(self, record: Record) -> None:
        if record.has_hub and not self._settings.hub_is_embedded:
            raise RequestFault(
                f"The backup has an embedded Hub, and PUBLISHER_HUB_ENDPOINT is {self._settings.hub_endpoint}.",
                way_out="Unset it.",
            )
        self._refuse_other_secret(record)
        standing = migrate.standing(self._url)
        if standing.unknown or not migrate.is_known(record.revision):
            raise RequestFault(
                f"The backup's tables are of revision {record.revision}, which version {record.version} made.",
                way_out="Restore it with that version or a later one.",
            )
        if not self._marker.exists():
            self._refuse_used()

    def _refuse_used(self) -> None:
        if self._settings.hub_dir.exists() and any(self._settings.hub_dir.glob("repos/*/*")):
            raise RequestFault(
                f"{self._settings.hub_dir} has repositories.", way_out="Restore to an empty folder: --data FOLDER."
            )
        database = Database(self._url)
        try:
            with database.engine.connect() as connection:
                migrate.refuse_used(connection)
        finally:
            database.close()

    def _refuse_other_secret(self, record: Record) -> None:
        there = self._secret_is_there()
        if not there and (self._backup.folder / SECRET).is_file():
            return
        if not self._new_secret and not (there and record.secret in fingerprints(self._settings)):
            raise RequestFault(
                "The signing secret is not the one that the service had, and the backup does not bring it along: what "
                "was signed or sealed with it is void (docs/operations.md says what that is).",
                way_out="Set PUBLISHER_SECRET to what it was, or accept the loss with --new-secret.",
            )

    def _secret_is_there(self) -> bool:
        """It is not made by looking."""
        return self._settings.secret is not None or (self._settings.data_dir / SECRET).exists()

    def _begin(self) -> bool:
        """Whether this backup was being restored here before, and was cut short."""
        name = self._backup.folder.name
        if not self._marker.exists():
            write_private(self._marker, name)
            return False
        if self._marker.read_text() != name:
            raise RequestFault(
                f"{self._settings.data_dir} is half restored from {self._marker.read_text()}.",
                way_out="Restore that one again, or take an empty folder and an empty database.",
            )
        return True

    # -- the Hub

    def _restore_hub(self, record: Record, on_bytes: Progress) -> None:
        """Beside its place, and then to it in one step."""
        target = self._settings.hub_dir
        if target.exists() and not any(target.glob("repos/*/*")):
            shutil.rmtree(target)
        if target.exists():  # cut short after this
            return
        for name in ("namespaces", "repos"):
            shutil.rmtree(self._partial / name, ignore_errors=True)
        self._partial.mkdir(exist_ok=True)
        if (self._backup.folder / HUB).is_dir():  # no empty folder outlives every copy of a backup
            shutil.copytree(self._backup.folder / HUB, self._partial, dirs_exist_ok=True)
        for sha256, size in record.blobs.items():
            self._restore_blob(sha256, size, on_bytes)
        os.sync()
        self._partial.rename(target)

    def _restore_blob(self, sha256: str, size: int, on_bytes: Progress) -> None:
        target = self._partial / "blobs" / sha256[:2] / sha256
        if target.exists() and target.stat().st_size == size:  # of a restore that was cut short: checked then
            on_bytes(size)
            return
        try:
            copy_content(self._backup.blob(sha256), target, sha256, on_bytes)
        except InfrastructureFault as error:
            if error.status == 507:
                raise
            raise self._backup.damaged(f"blob {sha256}", error.message.rstrip(".")) from error

    # -- the secret and the database

    def _restore_secret(self) -> None:
        kept = self._backup.folder / SECRET
        if not self._secret_is_there() and kept.is_file():
            write_private(self._settings.data_dir / SECRET, kept.read_text())

    def _fill(self, connection: Connection, record: Record) -> None:
        counts = read_rows(connection, self._backup.folder / DATABASE)
        if counts != record.tables:
            wrong = sorted(
                name for name in counts.keys() | record.tables.keys() if counts.get(name) != record.tables.get(name)
            )
            raise self._backup.damaged(DATABASE, f"other numbers of rows than it says, in {', '.join(wrong)}")

    def _is_filled(self) -> bool:
        """Rows come with their tables in one transaction."""
        database = Database(self._url)
        try:
            with database.engine.connect() as connection:
                return migrate.tenants_in(connection) > 0
        finally:
            database.close()

    def _check(self, record: Record) -> None:
        """Raises InfrastructureFault where a publication is not whole that was so when the backup was made."""
        database = Database(self._url)
        try:
            with database.write() as session:  # workers and processes are those of another installation
                release_all(session)
                presence.forget_all(session)
            found = list(self._lacking(database)) if record.has_hub else []
        finally:
            database.close()
        new = [str(lack) for lack in found if str(lack) not in record.lacking]
        if new:
            raise InfrastructureFault(f"{len(new)} publications are not whole: {new[0]}")

    def _lacking(self, database: Database) -> Iterator[Lack]:
        storage = HubStorage(self._settings.hub_dir)
        with database.engine.connect() as connection:
            published = published_variants(connection)
        yield from lacking(published_here(published, self._settings, storage), storage)
