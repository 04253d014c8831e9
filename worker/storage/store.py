"""Finished stages on disk, by digest: whole or not there at all, written once, used by every variant that fits.

<root>/prune-<digest>/           a finished stage, with stage.json in it
<root>/.partial/prune-<digest>/  one that is being written, or was when its process died
<root>/.kept/                    tokenized text and the like, for whoever needs it again; may be deleted at any time
<root>/.locks/                   one file lock per digest: two processes do not write the same folder
<root>/.uses/                    what jobs need that are not over (worker.storage.uses)
<root>/.trash/                   on its way out (worker.storage.collection)
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from publisher.files.amounts import size
from publisher.files.disk import full_disk_as_fault
from publisher.recipe.stages import Stage
from worker.storage.collection import LARGER_DISK, Upkeep, make_room
from worker.storage.folder import (
    RECORD,
    STATE,
    StageRecord,
    describe,
    empty,
    flush,
    fsync,
    read_record,
    write_json,
)
from worker.storage.locks import try_lock
from worker.storage.uses import Uses

_LOCK_POLL_SECONDS = 0.2


def stage_digest(stage: Stage, version: int, dependencies: Mapping[str, object]) -> str:
    """sha256 in hex over the canonical JSON of what a stage depends on.

    `version` is the stage's own: it grows when the same inputs give another output.
    """
    text = json.dumps([stage, version, dependencies], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _never() -> None:
    return None


class StageStore:
    """Stages below `root`. Several processes may share it. `user`: the job that needs what is asked for here.

    `upkeep`: how there is room for it.
    """

    def __init__(self, root: Path, user: str = "build", upkeep: Upkeep = Upkeep()) -> None:
        self.root = root
        self._upkeep = upkeep
        self._uses = Uses(root, user)

    @property
    def kept(self) -> Path:
        """For what several stages can use, each thing named by what it is made of, and made anew if it is gone."""
        return self.root / ".kept"

    @property
    def datasets(self) -> Path:
        """Documents of datasets, read from a Hub once for every stage and variant."""
        return self.kept / "datasets"

    def folder(self, stage: Stage, digest: str) -> Path:
        """Where the finished stage lies or will lie."""
        return self.root / f"{stage}-{digest[:32]}"

    def find(self, stage: Stage, digest: str) -> Path | None:
        """The finished stage; None if it is not there or no longer whole."""
        return self.folder(stage, digest) if self.record(stage, digest) else None

    def record(self, stage: Stage, digest: str) -> StageRecord | None:
        """stage.json of the finished stage; None as in `find`."""
        record = read_record(self.folder(stage, digest))
        return record if record is not None and record.digest == digest else None

    def forget(self, stage: Stage, digest: str) -> None:
        """Have the stage made again, whether it is there or not."""
        shutil.rmtree(self.folder(stage, digest), ignore_errors=True)

    def make_room(self, stage: Stage, digest: str, needed: int, say: Callable[[str], None]) -> None:
        """Have room for a stage that is to be made and takes `needed` bytes; `say` hears what was collected for it.

        Raises OutOfDisk if there is too little even so.
        """
        name = self.folder(stage, digest).name
        self._uses.note(name)
        begun = sum(path.lstat().st_size for path in (self.root / ".partial" / name).rglob("*") if path.is_file())
        removed = make_room(self.root, stage, max(0, needed - begun), self._upkeep)
        if removed:
            freed = size(sum(each.freed for each in removed))
            say(f"Collected {freed} in {len(removed)} stages and remains that no job needs, the longest unused first.")

    def produce(
        self,
        stage: Stage,
        digest: str,
        make: Callable[[Path], None],
        *,
        inputs: Mapping[Stage, str] | None = None,
        check: Callable[[], None] = _never,
    ) -> tuple[Path, bool]:
        """The finished stage, made by `make(folder)` unless it is there; the flag says whether it was.

        If another process is making it, waits for that one; `check` is called meanwhile and may raise. It is not
        collected before its user is done.
        """
        self._uses.note(self.folder(stage, digest).name)
        found = self.find(stage, digest)
        if found is not None:
            with suppress(PermissionError):  # another user's store, which this one may only read
                os.utime(found / RECORD)  # it was used now
            return found, True
        with full_disk_as_fault(f"stage {stage}", self.root, LARGER_DISK), self._exclusive(stage, digest, check):
            found = self.find(stage, digest)
            if found is None:
                with self._writing(stage, digest, inputs or {}, check) as partial:
                    make(partial)
        return self.folder(stage, digest), found is not None

    @contextmanager
    def write(
        self,
        stage: Stage,
        digest: str,
        *,
        inputs: Mapping[Stage, str] | None = None,
        check: Callable[[], None] = _never,
    ) -> Iterator[Path]:
        """A folder to write into; it becomes the finished stage when the block ends without an error.

        After an error or a kill nothing of it is visible, and the next writer finds it empty but for `state/`.
        Raises OutOfDisk when the disk is full.
        """
        with (
            full_disk_as_fault(f"stage {stage}", self.root, LARGER_DISK),
            self._exclusive(stage, digest, check),
            self._writing(stage, digest, inputs or {}, check) as partial,
        ):
            yield partial

    @contextmanager
    def _exclusive(self, stage: Stage, digest: str, check: Callable[[], None]) -> Iterator[None]:
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        check()
        while (lock := try_lock(locks / f"{stage}-{digest[:32]}.lock")) is None:
            time.sleep(_LOCK_POLL_SECONDS)
            check()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _writing(
        self, stage: Stage, digest: str, inputs: Mapping[Stage, str], check: Callable[[], None]
    ) -> Iterator[Path]:
        partial = self.root / ".partial" / f"{stage}-{digest[:32]}"
        empty(partial, keep_state=True)
        started = time.monotonic()
        finished = False
        try:
            yield partial
            if (partial / STATE).exists():
                shutil.rmtree(partial / STATE)
            files, links = describe(partial, check)
            record = StageRecord(
                stage=stage,
                digest=digest,
                inputs={needed.value: digest for needed, digest in inputs.items()},
                seconds=time.monotonic() - started,
                files=files,
                links=links,
            )
            write_json(partial / RECORD, record.model_dump(mode="json"))
            flush(partial)
            self._publish(partial, stage, digest)
            finished = True
        finally:
            if not finished:
                empty(partial, keep_state=True)

    def _publish(self, partial: Path, stage: Stage, digest: str) -> None:
        """Rename into place. A twin that another machine finished meanwhile wins; remains that are not whole go."""
        final = self.folder(stage, digest)
        if final.exists() and self.find(stage, digest) is None:
            shutil.rmtree(final)
        try:
            partial.rename(final)
        except OSError:
            if self.find(stage, digest) is None:
                raise
            shutil.rmtree(partial)
        fsync(self.root)
