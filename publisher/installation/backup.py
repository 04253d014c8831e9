"""Taking a backup while the service and its workers run.

First the database, as of one moment; then the Hub's records; then what the files hold. Whatever the database says was
published was in the Hub before, and what is there does not change: so it is in the copy. What was deleted in between is
not, which is why all but the contents is then taken once more.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from publisher import __version__
from publisher.errors import Conflict, InfrastructureFault, RequestFault
from publisher.files.private import write_private
from publisher.hub.checking import Contents, read_contents
from publisher.hub.disk import disk_full_is_named
from publisher.hub.storage import HubStorage
from publisher.installation.consistency import lacking, published_here
from publisher.installation.contents import copy_content
from publisher.installation.record import (
    BACKUPS,
    BLOBS,
    DATABASE,
    HUB,
    RECORD,
    SECRET,
    UNFINISHED,
    Backup,
    Progress,
    Record,
    backups_in,
)
from publisher.installation.secret import fingerprints
from publisher.settings import Settings
from publisher.store.database import Database
from publisher.store.dump import snapshot, write_rows
from publisher.store.migrate import current_revision
from publisher.store.publications import PublishedVariant, published_variants

#: times that database and records are taken, while repositories are deleted between the two
ROUNDS = 3


@dataclass(frozen=True)
class Taken:
    """`copied`: blobs that were not in an earlier backup in the same folder, and how many bytes they have."""

    backup: Backup
    record: Record
    copied: int
    copied_bytes: int


class Taking:
    """One backup into `place`, which may hold others."""

    def __init__(self, settings: Settings, database: Database, place: Path, on_bytes: Progress) -> None:
        self._settings, self._database, self._place, self._on_bytes = settings, database, place, on_bytes
        self._hub = HubStorage(settings.hub_dir) if settings.hub_is_embedded and settings.hub_dir.is_dir() else None
        self._copied = self._copied_bytes = 0

    def run(self, *, with_secret: bool) -> Taken:
        """Raises Conflict while another one is made in the same place, OutOfDisk, InfrastructureFault."""
        (self._place / BACKUPS).mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._place / ".lock", blocking=False):
                _remove_unfinished(self._place)
                partial = self._place / BACKUPS / f"{UNFINISHED}{secrets.token_hex(4)}"
                with disk_full_is_named(self._place):
                    record = self._fill(partial, with_secret=with_secret)
                    return Taken(_seal(partial, record), record, self._copied, self._copied_bytes)
        except Timeout:
            raise Conflict(
                f"Another backup is being made in {self._place}.", way_out="Wait until it is done."
            ) from None

    def _fill(self, partial: Path, *, with_secret: bool) -> Record:
        for left in reversed(range(ROUNDS)):
            shutil.rmtree(partial, ignore_errors=True)
            (partial / DATABASE).mkdir(parents=True)
            revision, tables, published = self._copy_database(partial / DATABASE)
            blobs, faults = self._copy_hub(partial, published) if self._hub else ({}, [])
            if not faults or not left:
                break
        if with_secret:
            write_private(partial / SECRET, self._settings.secret_bytes().decode())
        return Record(
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
            revision=revision,
            tables=tables,
            publications=len(published),
            has_hub=self._hub is not None,
            blobs=blobs,
            secret=fingerprints(self._settings)[0],
            lacking=faults,
        )

    def _copy_database(self, folder: Path) -> tuple[str, dict[str, int], list[PublishedVariant]]:
        with snapshot(self._database) as connection:
            revision = current_revision(connection)
            if revision is None:
                raise RequestFault(
                    "The database has no tables: there is nothing to back up.",
                    way_out="Is this the service's PUBLISHER_DATABASE_URL, or its folder (--data)?",
                )
            return revision, write_rows(connection, folder), published_variants(connection)

    def _copy_hub(self, partial: Path, published: list[PublishedVariant]) -> tuple[dict[str, int], list[str]]:
        """sha256 and size of what the copied records need and is in the backup; what is not, in words."""
        assert self._hub is not None
        _copy_records(self._hub, partial / HUB)
        copy = HubStorage(partial / HUB)  # reads the records; its contents lie elsewhere
        contents = read_contents(copy)
        unread = dict(self._copy_blobs(contents))
        for empty in (copy.blobs.folder, copy.blobs.incoming):
            empty.rmdir()
        blobs = {sha256: size for sha256, size in contents.blobs.items() if sha256 not in unread}
        here = published_here(published, self._settings, self._hub)
        faults = [str(lack) for lack in lacking(here, self._hub)]
        return blobs, [*contents.damage, *unread.values(), *faults]

    def _copy_blobs(self, contents: Contents) -> Iterator[tuple[str, str]]:
        """What cannot be copied: sha256 and why."""
        assert self._hub is not None
        for sha256, size in contents.blobs.items():
            target = self._place / BLOBS / sha256[:2] / sha256
            if target.exists() and target.stat().st_size == size:
                self._on_bytes(size)
                continue
            try:
                copy_content(self._hub.blobs.path(sha256), target, sha256, self._on_bytes)
            except InfrastructureFault as error:
                if error.status == 507:
                    raise
                yield sha256, f"{contents.named[sha256]}: {error.message}"
            else:
                self._copied, self._copied_bytes = self._copied + 1, self._copied_bytes + size


def _copy_records(hub: HubStorage, target: Path) -> None:
    for path in (hub.root / "namespaces").glob("*.json"):
        (target / "namespaces").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / "namespaces" / path.name)
    for repository in hub.repository_folders():
        repository.copy_records(target / "repos" / repository.id.namespace / repository.id.name)


def _seal(partial: Path, record: Record) -> Backup:
    """The last step gives it its name: everything lies on the disk by then."""
    (partial / RECORD).write_text(record.model_dump_json(indent=1), encoding="utf-8")
    Backup(partial).write_sums(record)
    os.sync()
    folder = _free_name(partial.parent)
    partial.rename(folder)
    os.sync()
    return Backup(folder)


def _free_name(backups: Path) -> Path:
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    candidates = (backups / (name if not number else f"{name}-{number}") for number in range(10_000))
    return next(path for path in candidates if not path.exists())


def _remove_unfinished(place: Path) -> None:
    """Of backups that were cut short; nobody else is at it."""
    for path in (place / BACKUPS).glob(f"{UNFINISHED}*"):
        shutil.rmtree(path)
    for path in (place / BLOBS).glob("*/.*.tmp"):
        path.unlink()


def forget_old(place: Path, keep: int, said: Callable[[str], object]) -> int:
    """Delete all backups in `place` but the newest `keep`, and what they alone needed; returns how many bytes."""
    with FileLock(place / ".lock"):
        old = sorted(backups_in(place))[:-keep]
        needed = {sha256 for folder in set(backups_in(place)) - set(old) for sha256 in Backup(folder).record().blobs}
        for folder in old:
            doomed = folder.with_name(f"{UNFINISHED}{folder.name}")
            folder.rename(doomed)
            shutil.rmtree(doomed)
            said(folder.name)
        unused = [path for path in (place / BLOBS).glob("*/*") if path.name not in needed] if old else []
        freed = sum(path.stat().st_size for path in unused)
        for path in unused:
            path.unlink()
        return freed
