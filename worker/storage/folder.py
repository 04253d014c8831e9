"""A stage's folder on disk: what lies in it, whether it is whole, and bringing it safely to disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from publisher.recipe.stages import Stage

RECORD = "stage.json"
#: kept between attempts (a download, a training state), removed from the finished folder
STATE = "state"
#: what has become of a file, or of one of the base model's owner, that a stage points to; all else is the disk's
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES)
_CHUNK_BYTES = 16 * 2**20


class FileFacts(BaseModel):
    """`size` in bytes."""

    model_config = ConfigDict(frozen=True)

    size: int
    sha256: str


class LinkFacts(BaseModel):
    """A file outside of the store that a stage only points to, and how it looked then. `size` in bytes."""

    model_config = ConfigDict(frozen=True)

    target: Path
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, target: Path) -> LinkFacts:
        found = target.stat()
        return cls(target=target, size=found.st_size, mtime_ns=found.st_mtime_ns)


class StageRecord(BaseModel):
    """stage.json. `inputs` maps the stages before it to their digests, `seconds` is the time that it took."""

    model_config = ConfigDict(frozen=True)

    stage: Stage
    digest: str
    inputs: dict[str, str]
    seconds: float
    files: dict[str, FileFacts]
    links: dict[str, LinkFacts]


def read_record(folder: Path) -> StageRecord | None:
    """The record of a whole folder; None if it is missing, or if a file is not there as it was recorded."""
    try:
        record = StageRecord.model_validate_json((folder / RECORD).read_bytes())
        sizes_agree = all((folder / name).stat().st_size == facts.size for name, facts in record.files.items())
        links_agree = all(LinkFacts.of(facts.target) == facts for facts in record.links.values())
    except ValidationError:
        return None
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        return None
    return record if sizes_agree and links_agree else None


def hash_file(path: Path, advance: Callable[[int], None]) -> str:
    """sha256 in hex; `advance` gets the bytes of each chunk that was read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def describe(folder: Path, check: Callable[[], None]) -> tuple[dict[str, FileFacts], dict[str, LinkFacts]]:
    """Files with their sha256, and links with what they point to; `check` is called while hashing."""
    files: dict[str, FileFacts] = {}
    links: dict[str, LinkFacts] = {}
    for path in _entries(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            links[name] = LinkFacts.of(path.resolve())
        elif path.is_file():
            files[name] = FileFacts(size=path.stat().st_size, sha256=hash_file(path, lambda _: check()))
    return files, links


def empty(folder: Path, *, keep_state: bool) -> None:
    """Make `folder` an empty one, but for its training or download state if that is wanted."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if keep_state and path.name == STATE:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def flush(folder: Path) -> None:
    """fsync every file and folder below, so that a rename never makes visible what a power cut can take back."""
    for path in (*_entries(folder), folder):
        if not path.is_symlink() and (path.is_file() or path.is_dir()):
            fsync(path)


def fsync(path: Path) -> None:
    """A file's content, or a folder's list of names (not what is in it)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Sorted and indented, so that equal values give equal bytes."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _entries(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob("*"))
