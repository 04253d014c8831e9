"""Text by name: where a corpus lies, how its documents are read, and which of them are held out."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, PrivateAttr, model_validator

from publisher.corpus.dataset import HubAccess, HubDataset
from publisher.corpus.files import TextFile, text_files
from publisher.corpus.pieces import divide
from publisher.corpus.reading import BYTE_ORDER_MARK, MOST_BYTES, read_documents
from publisher.errors import InfrastructureFault, RequestFault
from publisher.files.faults import file_faults
from publisher.recipe import CorpusName

_Signatures = dict[Path, tuple[int, int, int]]


class Split(StrEnum):
    TRAIN = "train"
    HELD_OUT = "held_out"


@dataclass(frozen=True)
class DatasetShelf:
    """Where the documents of datasets lie once they were read; may be emptied at any time."""

    folder: Path
    access: HubAccess


@dataclass(frozen=True)
class Division:
    """How documents fall on two sides: by the rank of their digests, or, of a text that is alone, by place in it.

    `last_held_out`: the largest digest that is held out; None if nothing is.
    """

    last_held_out: str | None
    within_document: bool = False


def _never() -> None:
    return None


class CorpusSource(BaseModel):
    """A file or folder of JSONL (.jsonl, .jsonl.gz), Parquet or text (.txt, one document a file), or a dataset.

    Documents of a dataset are read through a `shelf`, which is no part of what the corpus is. No more is the
    `expected_digest`, with which files that are not those of the registration any more are refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: CorpusName
    path: Path | None = None
    dataset: HubDataset | None = None
    text_field: str = Field(default="text", min_length=1, description="column that holds the text")
    held_out_fraction: float = Field(
        default=0.1, ge=0, le=1, description="share of the documents that is only ever used for evaluation"
    )
    shelf: InstanceOf[DatasetShelf] | None = Field(default=None, exclude=True, repr=False)
    expected_digest: str | None = Field(default=None, exclude=True, repr=False)
    _digested: _Signatures = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("a corpus has either a path or a dataset")
        return self

    def is_same_as(self, other: CorpusSource) -> bool:
        """Whether both say the same; who reads them, and whether they did already, is no part of that."""
        return self.model_dump() == other.model_dump()

    def prepare(self, check: Callable[[], None] = _never) -> None:
        """Have the documents of a dataset on the shelf; `check` is called between documents and may raise.

        Raises RequestFault for what is wrong with the dataset, InfrastructureFault if the Hub does not answer.
        """
        if self.dataset is None:
            return
        path = self._shelved()
        if not _is_used(path):
            assert self.shelf is not None, "_shelved() asked"
            texts = self.shelf.access.read(self.dataset, self.text_field)
            _write_jsonl(path, ({self.text_field: text} for text in _checked(texts, check)))

    def _shelved(self) -> Path:
        if self.shelf is None:
            raise InfrastructureFault(f"corpus {self.name}: nothing says where {self.dataset} is to be kept.")
        return self.shelf.folder / f"{self.content_digest()}.jsonl.gz"

    def files(self) -> list[Path]:
        """The corpus's files in a fixed order; RequestFault if there is none that can be read."""
        return [file.path for file in self._files()]

    def _files(self) -> list[TextFile]:
        if self.path is None:
            self.prepare()
            path = self._shelved()
            return [TextFile(path, path.name)]
        with self._named():
            return text_files(self.path)

    def documents(self, split: Split | None = None) -> Iterator[str]:
        """Documents of one split, or all as they come, in file order.

        A document is held out by the rank of its text's digest, so the split does not depend on order, and
        equal texts fall on the same side. A text that is alone is cut, so that each side has pieces of it. Raises
        RequestFault naming file and place of what cannot be read.
        """
        if split is None:
            return self._all()
        return (text for side, text in self.sides() if side is split)

    def sides(self, division: Division | None = None) -> Iterator[tuple[Split, str]]:
        """Every document, or piece of the only one, with its side, in file order. Reads the files once for this, and
        once to divide them, unless `division` is given."""
        division = division or self.division()
        for text in self._all():
            if division.within_document:
                train, held_out = divide(text, self.held_out_fraction)
                yield from ((Split.TRAIN, piece) for piece in train if piece.strip())
                yield from ((Split.HELD_OUT, piece) for piece in held_out if piece.strip())
            else:
                is_held_out = division.last_held_out is not None and _rank(text) <= division.last_held_out
                yield (Split.HELD_OUT if is_held_out else Split.TRAIN), text

    def division(self) -> Division:
        """Where documents are divided by rank, and anything is to be trained on, one document is at least."""
        ranks = sorted({_rank(text) for text in self._all()})
        count = math.ceil(len(ranks) * self.held_out_fraction)
        if self.held_out_fraction < 1 and count == len(ranks):
            if len(ranks) == 1:
                return Division(None, within_document=True)
            count -= 1
        return Division(ranks[count - 1] if count > 0 else None)

    def _all(self) -> Iterator[str]:
        files = self._files()
        with self._named():
            before = {file.path: file.signature() for file in files}
        for file in files:
            self._refuse_changed(file, before[file.path], self._digested or before)
        for file in files:
            with self._named():
                yield from (text for text in read_documents(file, self.text_field) if text.strip())
                after = file.signature()
            self._refuse_changed(file, after, before)

    def _refuse_changed(self, file: TextFile, now: object, before: _Signatures) -> None:
        """A file that came later is not among those `before`."""
        if before.get(file.path) != now:
            raise self._changed(file)

    def _changed(self, file: TextFile) -> RequestFault:
        return RequestFault(
            f"corpus {self.name}: {file.name} changed after it was registered or first read.",
            field="path",
            way_out="Leave its files as they are; register it again (POST /v1/corpora) and retry the job, or give the "
            "build command again.",
        )

    @contextmanager
    def _named(self) -> Iterator[None]:
        """The corpus's name before what is wrong with its files. What is wrong with a file of the shelf is nobody's
        fault who named a dataset: without it, the dataset is read again."""
        try:
            yield
        except RequestFault as error:
            if self.dataset is None:
                raise RequestFault(
                    f"corpus {self.name}: {error.message}", field=error.field, way_out=error.way_out
                ) from error
            self._shelved().unlink(missing_ok=True)
            raise InfrastructureFault(
                f"corpus {self.name}: the copy of {self.dataset} that is kept here was damaged: {error.message}",
                way_out="It is read again from the Hub: try again.",
            ) from error

    @property
    def known_digest(self) -> str | None:
        """`content_digest` without reading files: None of those that nobody has registered."""
        return self.expected_digest if self.dataset is None else self.content_digest()

    def content_digest(self) -> str:
        """sha256 over names' order and bytes of the files, and what decides on what is read of them.

        A dataset is known by its commit, so nothing of it is read for this. Raises RequestFault if it is not the
        `expected_digest`.
        """
        if self.dataset is not None:
            decisive = [self.dataset.model_dump(), self.text_field, self.held_out_fraction]
            return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        digest = self._digest_of_files()
        if self.expected_digest not in {None, digest}:
            raise self._changed(max(self._files(), key=TextFile.signature))
        return digest

    def _digest_of_files(self) -> str:
        digest = hashlib.sha256(f"{self.text_field}\n{self.held_out_fraction}\n".encode())
        signatures: _Signatures = {}
        has_marks = False
        for file in self._files():
            signatures[file.path] = file.signature()
            with self._named(), file_faults(file.name), file.path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
                stream.seek(0)
                has_marks |= file.ending == ".txt" and stream.read(3) == BYTE_ORDER_MARK.encode()
        self._digested = signatures
        # what is read otherwise than by versions whose digests had nothing to say about it
        if has_marks:
            digest.update(b"byte order marks are no text\n")
        if self._has_few_documents():
            digest.update(b"not every document is held out\n")
        return digest.hexdigest()

    def _has_few_documents(self) -> bool:
        """Whether, rounded up, the fraction would hold out every document. Reads no more than tell."""
        if not 0 < self.held_out_fraction < 1:
            return False
        enough = math.floor(1 / (1 - self.held_out_fraction)) + 1
        seen: set[str] = set()
        for text in self._all():
            seen.add(_rank(text))
            if len(seen) == enough:
                break
        return bool(seen) and math.ceil(len(seen) * self.held_out_fraction) == len(seen)


def _is_used(path: Path) -> bool:
    """Whether it is there; then it was used now, and what was not for long is collected first."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _checked(texts: Iterator[str], check: Callable[[], None]) -> Iterator[str]:
    for number, text in enumerate(texts, 1):
        check()
        if len(text) > MOST_BYTES:
            raise RequestFault(
                f"text {number} of the dataset is longer than {MOST_BYTES // 2**20} MiB.", field="dataset"
            )
        yield text


def _write_jsonl(path: Path, records: Iterator[dict[str, str]]) -> None:
    """Whole or not at all; of two that write at once the last one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with gzip.open(partial, "wt", encoding="utf-8", compresslevel=3) as lines:
            lines.writelines(json.dumps(record) + "\n" for record in records)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _rank(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
