"""The beginning of a corpus, for people to look at: little is read, whatever the files hold."""

from __future__ import annotations

import gzip
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, cast

from publisher.corpus.files import TextFile
from publisher.corpus.reading import read_documents
from publisher.errors import RequestFault
from publisher.files.faults import file_faults

#: of a sample
DOCUMENTS, CHARACTERS = 5, 600
#: of a file; and of its column in a Parquet file's first group of rows, which is decoded as one
MOST_BYTES, MOST_COLUMN_BYTES = 2**20, 2**26


@dataclass(frozen=True)
class Excerpt:
    """A document's beginning."""

    text: str
    is_cut: bool


def sample(file: TextFile, text_field: str) -> list[Excerpt]:
    """The first documents of a file. RequestFault for what cannot be read, or not without reading much."""
    with tempfile.TemporaryDirectory(prefix="sample-") as folder:
        texts = (text.strip() for text in _texts(file, text_field, Path(folder)))
        return [Excerpt(text[:CHARACTERS], len(text) > CHARACTERS) for text in islice(filter(None, texts), DOCUMENTS)]


def _texts(file: TextFile, text_field: str, folder: Path) -> Iterator[str]:
    if file.ending == ".parquet":
        _refuse_large(file, text_field)
        return read_documents(file, text_field)
    return read_documents(_beginning(file, folder), text_field)


def _beginning(file: TextFile, folder: Path) -> TextFile:
    """The file's first lines, unpacked, as a file of their own: so the readers need not know of it."""
    with file_faults(file.name), file.path.open("rb") as packed:
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=packed)) if file.ending == ".jsonl.gz" else packed
        try:
            read = stream.read(MOST_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise RequestFault(f"{file.name} is damaged: {error}.", field="path") from error
    if len(read) == MOST_BYTES:
        read = read[: read.rfind(b"\n") + 1] if file.ending != ".txt" else read.decode(errors="ignore").encode()
    if not read:
        raise RequestFault(f"the first document of {file.name} is longer than {MOST_BYTES // 2**20} MiB.", field="path")
    written = folder / f"beginning{file.ending.removesuffix('.gz')}"
    written.write_bytes(read)
    return TextFile(written, file.name)


def _refuse_large(file: TextFile, text_field: str) -> None:
    from pyarrow import ArrowException, parquet

    try:
        with file_faults(file.name), parquet.ParquetFile(file.path) as whole:
            rows = whole.metadata.row_group(0)
            columns = [rows.column(index) for index in range(rows.num_columns)]
    except (ArrowException, IndexError) as error:
        raise RequestFault(f"{file.name} cannot be read as Parquet: {error}.", field="path") from error
    of_text = [column for column in columns if column.path_in_schema.partition(".")[0] == text_field]
    if sum(column.total_uncompressed_size for column in of_text) > MOST_COLUMN_BYTES:
        raise RequestFault(
            f"the first rows of {file.name} are one piece of more than {MOST_COLUMN_BYTES // 2**20} MiB.", field="path"
        )
