"""Text by name: where a corpus lies, how its documents are read, and which of them are held out."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Self

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, model_validator

from publisher.errors import InfrastructureFault, RequestFault
from publisher.hub_dataset import HubAccess, HubDataset
from publisher.recipe import CorpusName

#: (file, text field) → pairs of a place that people can find and what stands there
Reader = Callable[[Path, str], Iterator[tuple[str, object]]]


class Split(StrEnum):
    TRAIN = "train"
    HELD_OUT = "held_out"


@dataclass(frozen=True)
class DatasetShelf:
    """Where the documents of datasets lie once they were read; may be emptied at any time."""

    folder: Path
    access: HubAccess


def _never() -> None:
    return None


class CorpusSource(BaseModel):
    """A file or folder of JSONL (.jsonl, .jsonl.gz), Parquet or text (.txt, one document a file), or a dataset.

    Documents of a dataset are read through a `shelf`, which is no part of what the corpus is.
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

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("a corpus has either a path or a dataset")
        return self

    def prepare(self, check: Callable[[], None] = _never) -> None:
        """Have the documents of a dataset on the shelf; `check` is called between documents and may raise.

        Raises RequestFault for what is wrong with the dataset, InfrastructureFault if the Hub does not answer.
        """
        if self.dataset is None:
            return
        path = self._shelved()
        if not path.exists():
            assert self.shelf is not None, "_shelved() asked"
            texts = self.shelf.access.read(self.dataset, self.text_field)
            _write_jsonl(path, ({self.text_field: text} for text in _checked(texts, check)))

    def _shelved(self) -> Path:
        if self.shelf is None:
            raise InfrastructureFault(f"corpus {self.name}: nothing says where {self.dataset} is to be kept.")
        return self.shelf.folder / f"{self.content_digest()}.jsonl.gz"

    def files(self) -> list[Path]:
        """The corpus's files in a fixed order; RequestFault if there is none that can be read."""
        if self.path is None:
            self.prepare()
            return [self._shelved()]
        if not self.path.exists():
            raise RequestFault(f"corpus {self.name}: {self.path} does not exist.", field="path")
        candidates = [self.path] if self.path.is_file() else sorted(self.path.rglob("*"))
        files = [path for path in candidates if path.is_file() and _reader(path) is not None]
        if not files:
            raise RequestFault(
                f"corpus {self.name}: {self.path} holds no .jsonl, .jsonl.gz, .parquet or .txt file.",
                field="path",
            )
        return files

    def documents(self, split: Split | None = None) -> Iterator[str]:
        """Documents of one split (or all), in file order.

        A document is held out by the rank of its text's digest, so the split does not depend on order, and
        equal texts fall on the same side. Raises RequestFault naming file and line of what cannot be read.
        """
        if split is None:
            yield from self._all()
            return
        limit = self._held_out_limit()
        for text in self._all():
            held_out = limit is not None and _rank(text) <= limit
            if held_out == (split is Split.HELD_OUT):
                yield text

    def _all(self) -> Iterator[str]:
        for path in self.files():
            reader = _reader(path)
            assert reader is not None
            for where, text in reader(path, self.text_field):
                if not isinstance(text, str):
                    raise RequestFault(
                        f"corpus {self.name}: {path.name}, {where} has no text in field {self.text_field!r}.",
                        field="text_field",
                    )
                if text.strip():
                    yield text

    def _held_out_limit(self) -> str | None:
        """The largest digest that is held out; None if nothing is."""
        ranks = sorted({_rank(text) for text in self._all()})
        count = math.ceil(len(ranks) * self.held_out_fraction)
        return ranks[count - 1] if count else None

    def content_digest(self) -> str:
        """sha256 over names' order and bytes of the files, and the fields that decide what is read.

        A dataset is known by its commit, so nothing of it is read for this.
        """
        if self.dataset is not None:
            decisive = [self.dataset.model_dump(), self.text_field, self.held_out_fraction]
            return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        digest = hashlib.sha256(f"{self.text_field}\n{self.held_out_fraction}\n".encode())
        for path in self.files():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def _checked(texts: Iterator[str], check: Callable[[], None]) -> Iterator[str]:
    for text in texts:
        check()
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


def _reader(path: Path) -> Reader | None:
    for ending, reader in _READERS.items():
        if path.name.endswith(ending):
            return reader
    return None


def _read_jsonl(path: Path, text_field: str) -> Iterator[tuple[str, object]]:
    with _open_text(path) as lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"line {number}", _record(path, number, line).get(text_field)
        except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
            raise RequestFault(f"{path.name} is damaged or not UTF-8: {error}.", field="path") from error


def _record(path: Path, number: int, line: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise RequestFault(f"{path.name}, line {number} is not JSON: {error}.", field="path") from error
    if not isinstance(record, dict):
        raise RequestFault(f"{path.name}, line {number} is not a JSON object.", field="path")
    return record


def _open_text(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def _read_text(path: Path, text_field: str) -> Iterator[tuple[str, object]]:
    try:
        yield "the file", path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestFault(f"{path.name} is not UTF-8: {error}.", field="path") from error


def _read_parquet(path: Path, text_field: str) -> Iterator[tuple[str, object]]:
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    if text_field not in file.schema_arrow.names:
        raise RequestFault(
            f"{path.name} has no column {text_field!r}.",
            field="text_field",
            way_out=f"Columns: {', '.join(file.schema_arrow.names)}.",
        )
    row = 0
    for batch in file.iter_batches(columns=[text_field]):
        for value in batch.column(0).to_pylist():
            row += 1
            yield f"row {row}", value


_READERS: dict[str, Reader] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".txt": _read_text,
    ".parquet": _read_parquet,
}
