"""What a backup is made of.

DIR/blobs/ab/<sha256>           contents of the embedded Hub's files, shared by all backups in DIR
DIR/backups/<UTC time>/
    backup.json                 what it holds: publisher.installation.record.Record
    database/<table>.jsonl.gz   publisher.store.dump
    hub/namespaces, hub/repos   the Hub's records, as in publisher.hub.storage
    secret                      the signing secret, if that was asked for
    SHA256SUMS                  of all of these, and of the blobs that it needs, as `sha256sum --check` reads it

A backup gets its name when it is whole: what lies beside it under `.unfinished-…` is none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from publisher.errors import InfrastructureFault, RequestFault

BACKUPS, BLOBS, DATABASE, HUB, SECRET = "backups", "blobs", "database", "hub", "secret"
RECORD, SUMS = "backup.json", "SHA256SUMS"
UNFINISHED = ".unfinished-"
_NAME = re.compile(r"\d{8}T\d{6}Z(-\d+)?")
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_TO_BLOBS = f"../../{BLOBS}/"
_PIECE = 1024**2

#: hears how many more bytes were read
Progress = Callable[[int], None]


class Record(BaseModel):
    """`revision`: of the database's tables; `secret`: fingerprint of the signing secret; `blobs`: sha256 → bytes.

    `lacking`: what was not whole in the Hub when the backup was made, and so is not in the backup either.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    made_at: str
    version: str
    revision: str
    tables: dict[str, int]
    publications: int
    has_hub: bool
    blobs: dict[str, int]
    secret: str
    lacking: list[str]


class Backup:
    """One that lies in `folder`, which is DIR/backups/<UTC time>."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder.parent.parent / BLOBS

    @classmethod
    def find(cls, place: Path) -> Self:
        """The backup at `place`, or the newest in it. RequestFault where there is none."""
        if _NAME.fullmatch(place.name) and (place / RECORD).is_file():
            return cls(place.absolute())
        found = sorted(backups_in(place))
        if not found:
            raise RequestFault(
                f"There is no whole backup in {place}.",
                way_out=f"Name the folder that `publisher admin backup` was given, or one in its {BACKUPS}/.",
            )
        return cls(found[-1].absolute())

    def record(self) -> Record:
        """Raises InfrastructureFault for what cannot be read, RequestFault for what a newer version has made."""
        try:
            content = (self.folder / RECORD).read_bytes()
            record = Record.model_validate_json(content)
        except (OSError, ValidationError) as error:
            raise self.damaged(RECORD, f"it cannot be read ({str(error).splitlines()[0]})") from error
        if record.format != 1:
            raise RequestFault(
                f"{self.folder} is a backup of format {record.format}.", way_out="Restore it with a newer version."
            )
        return record

    def sums(self) -> dict[str, str]:
        """sha256 of every file of the backup, by its path from `folder`. Raises InfrastructureFault."""
        try:
            *lines, rest = (self.folder / SUMS).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise self.damaged(SUMS, "it cannot be read") from error
        found = [_LINE.fullmatch(line) for line in lines]
        if rest or not all(found):
            raise self.damaged(SUMS, "it is not what `publisher admin backup` writes")
        return {match[2]: match[1] for match in found if match}

    def write_sums(self, record: Record) -> None:
        """The last file of a backup; of its blobs as they were received."""
        own = [f"{sha256_of(path)}  {path.relative_to(self.folder)}" for path in sorted(files_below(self.folder))]
        blobs = [f"{sha256}  {_to_blob(sha256)}" for sha256 in sorted(record.blobs)]
        (self.folder / SUMS).write_text("\n".join([*own, *blobs]) + "\n", encoding="utf-8")

    def blob(self, sha256: str) -> Path:
        return self.blobs / sha256[:2] / sha256

    def check_files(self) -> None:
        """Compare all but the blobs with their sha256. Raises InfrastructureFault naming the first that differs."""
        sums = self.sums()
        blobs = {name: sums.pop(name) for name in list(sums) if name.startswith(_TO_BLOBS)}
        there = {str(path.relative_to(self.folder)) for path in files_below(self.folder)} - {SUMS}
        for name in sorted(sums.keys() | there):
            if name not in there:
                raise self.damaged(name, "it is missing")
            if name not in sums:
                raise self.damaged(name, f"{SUMS} does not name it")
            if sha256_of(self.folder / name) != sums[name]:
                raise self.damaged(name, f"its sha256 is not the one in {SUMS}")
        if blobs != {_to_blob(sha256): sha256 for sha256 in self.record().blobs}:
            raise self.damaged(SUMS, f"it names other blobs than {RECORD}")

    def check_blobs(self, on_bytes: Progress) -> None:
        """Compare the blobs that the backup needs with their sha256. Raises InfrastructureFault."""
        for sha256 in self.record().blobs:
            path = self.blob(sha256)
            if not path.is_file():
                raise self.damaged(_to_blob(sha256), "it is missing")
            if sha256_of(path, on_bytes) != sha256:
                raise self.damaged(_to_blob(sha256), "its sha256 is another one than its name")

    def damaged(self, name: str, why: str) -> InfrastructureFault:
        return InfrastructureFault(
            f"Backup {self.folder} is damaged: {name}: {why}.", way_out="Restore another one; nothing was changed here."
        )


def _to_blob(sha256: str) -> str:
    """From a backup's folder, as `sha256sum` writes it."""
    return f"{_TO_BLOBS}{sha256[:2]}/{sha256}"


def backups_in(place: Path) -> Iterator[Path]:
    """Whole ones, in no order."""
    folder = place / BACKUPS
    for path in folder.iterdir() if folder.is_dir() else ():
        if _NAME.fullmatch(path.name) and (path / RECORD).is_file():
            yield path


def files_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def sha256_of(path: Path, on_bytes: Progress | None = None) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            if on_bytes is not None:
                on_bytes(len(piece))
    return digest.hexdigest()
