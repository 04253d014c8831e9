"""Documents of one file: JSON Lines, Parquet or text. What cannot be read is named by file, place and way out."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from publisher.corpus.files import TextFile
from publisher.errors import RequestFault
from publisher.files.faults import OTHER_ENCODINGS, POINTERS, Foreign, decoded, file_faults, not_utf8, refuse_foreign
from publisher.files.reading import reading

#: of a line, a text file or a Parquet value. A document is held in memory and tokenized whole, which takes tens of
#: bytes for each of its own.
MOST_BYTES = 256 * 1024 * 1024
BYTE_ORDER_MARK = "\ufeff"
_TEXT, _AGAIN = "the corpus", "Fetch or write it again, or remove it."
_HEAD_BYTES = 512
#: documents decoded at a time: pyarrow's own default of 65,536 can be gigabytes of long ones
_ROWS_AT_ONCE = 1024
_SHOWN_FIELDS, _SHOWN_CHARACTERS = 20, 60
_NAME_THE_FIELD = (
    "Name the field that holds the text: text_field in POST /v1/corpora, `--corpus 'NAME=PATH?text_field=FIELD'`."
)
#: integers become floats, of which any number of digits can be read: only the text is wanted
_DECODER = json.JSONDecoder(parse_int=float)

_NOT_PLAIN: Foreign = {
    b"\x1f\x8b": ("is packed with gzip, which its name does not say.", "Rename it to .jsonl.gz, or unpack it."),
    b"\x28\xb5\x2f\xfd": ("is packed with zstd.", "Unpack it, or pack it as .jsonl.gz."),
    b"BZh": ("is packed with bzip2.", "Unpack it, or pack it as .jsonl.gz."),
    b"\xfd7zXZ": ("is packed with xz.", "Unpack it, or pack it as .jsonl.gz."),
    b"PK\x03\x04": ("is a ZIP archive.", "Unpack it."),
    b"PAR1": ("is Parquet, which its name does not say.", "Rename it to .parquet."),
}
_PAGES = (b"<!doctype html", b"<html")


def read_documents(file: TextFile, text_field: str) -> Iterator[str]:
    """The texts of a file in order, without missing (null) ones; blank ones are among them.

    Raises RequestFault for what is wrong with the file, InfrastructureFault if the disk does not answer.
    """
    _refuse_other_content(file)
    with reading(_TEXT, file.path, field="path", way_out=_AGAIN), file_faults(file.name):
        yield from _READERS[file.ending](file, text_field)


def read_records(file: TextFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """("name, line 7", object) of each line of a JSON Lines file, without blank ones; numbers are floats.

    Raises as `read_documents`.
    """
    _refuse_other_content(file)
    with reading(_TEXT, file.path, field="path", way_out=_AGAIN), file_faults(file.name):
        for place, record, line in _records(file):
            if _may_hold_halves(line):
                _refuse_halves(place, json.dumps(record, ensure_ascii=False))
            yield place, record


def _refuse_other_content(file: TextFile) -> None:
    with file_faults(file.name), file.path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    refuse_foreign(file.name, head, POINTERS)
    if file.ending != ".txt" and head.lstrip().lower().startswith(_PAGES):
        raise _damaged(file, "is a web page, perhaps an error or a login in the file's place.")
    if file.ending in {".jsonl", ".txt"}:
        refuse_foreign(file.name, head, OTHER_ENCODINGS | _NOT_PLAIN)
    elif not head:
        raise _damaged(file, "is empty: 0 bytes.")
    elif file.ending == ".jsonl.gz" and not head.startswith(b"\x1f\x8b"):
        raise RequestFault(
            f"{file.name} is not gzip.", field="path", way_out="If it is JSON Lines, rename it to .jsonl."
        )


def _damaged(file: TextFile, what: str) -> RequestFault:
    return RequestFault(f"{file.name} {what}", field="path", way_out=_AGAIN)


def _too_long(place: str) -> RequestFault:
    return RequestFault(
        f"{place} is longer than {MOST_BYTES // 2**20} MiB, which is too long for one document.",
        field="path",
        way_out="Cut it into several documents: `split --line-bytes=100M` does so with text files.",
    )


def _read_jsonl(file: TextFile, text_field: str) -> Iterator[str]:
    for place, record, line in _records(file):
        text = _text_of(place, record, text_field)
        if text is not None:
            if _may_hold_halves(line):
                _refuse_halves(place, text)
            yield text


def _records(file: TextFile) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Place, object and the line that it stands in."""
    with file.path.open("rb") as packed:
        stream: IO[bytes] = packed
        if file.ending == ".jsonl.gz":
            stream = io.BufferedReader(gzip.GzipFile(fileobj=packed))
        for number, line in _lines(file, stream):
            place = f"{file.name}, line {number}"
            decoded_line = _decoded_line(place, line).removeprefix(BYTE_ORDER_MARK)
            if decoded_line.strip():
                yield place, _record(place, decoded_line), decoded_line


def _lines(file: TextFile, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Numbered from 1. As in Python's text files \\n, \\r\\n and a lone \\r end a line."""
    number = 0
    while chunk := _chunk(file, stream, number + 1):
        for line in chunk.splitlines():
            number += 1
            yield number, line


def _chunk(file: TextFile, stream: IO[bytes], number: int) -> bytes:
    try:
        chunk = stream.readline(MOST_BYTES + 1)
    except (zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise _damaged(file, f"is damaged in or after line {number}: {error}.") from error
    if len(chunk) > MOST_BYTES:
        raise _too_long(f"{file.name}, line {number}")
    return chunk


def _decoded_line(place: str, line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        refuse_foreign(place, line[:4], OTHER_ENCODINGS)  # within gzip nobody looked before
        raise not_utf8(place, line[error.start], error.start, "line") from error


def _record(place: str, line: str) -> dict[str, Any]:
    try:
        record = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise RequestFault(f"{place} is not JSON: {error}.", field="path", way_out=_jsonl_way_out(line)) from error
    except RecursionError as error:
        raise RequestFault(
            f"{place} is nested too deeply to be read.", field="path", way_out="Remove the line."
        ) from error
    if not isinstance(record, dict):
        raise RequestFault(f"{place} is not a JSON object.", field="path", way_out=_jsonl_way_out(line))
    return record


def _jsonl_way_out(line: str) -> str:
    if "\0" in line:
        return "It holds NUL bytes: it was cut off while it was written, or is UTF-16. Write it again as UTF-8."
    if line.lstrip().startswith("["):
        return "For a JSON array: `jq -c '.[]' OLD > NEW.jsonl` makes JSON Lines, one object a line."
    if line.strip() == "{":
        return "For objects over several lines: `jq -c . OLD > NEW.jsonl` makes JSON Lines, one object a line."
    return "JSON Lines have one whole object a line."


def _text_of(place: str, record: dict[str, Any], text_field: str) -> str | None:
    if text_field not in record:
        raise _no_field(place, text_field, list(record))
    text = record[text_field]
    if text is None:
        return None
    if not isinstance(text, str):
        kind = {bool: "a boolean", float: "a number", list: "a list", dict: "an object"}[type(text)]
        raise _no_text(place, text_field, f"it is {kind}")
    return text


def _no_field(place: str, text_field: str, fields: list[str]) -> RequestFault:
    shown = [field[:_SHOWN_CHARACTERS] for field in fields[:_SHOWN_FIELDS]]
    return _no_text(place, text_field, f"its fields are {', '.join(shown) or 'none'}")


def _no_text(place: str, text_field: str, instead: str) -> RequestFault:
    return RequestFault(
        f"{place} has no text in field {text_field!r}: {instead}.", field="text_field", way_out=_NAME_THE_FIELD
    )


def _may_hold_halves(line: str) -> bool:
    return "\\ud" in line or "\\uD" in line


def _refuse_halves(place: str, text: str) -> None:
    """JSON's escapes can write halves of characters, which are no text and which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        raise RequestFault(
            f"{place} holds half of a surrogate pair, \\u{half:04x} at character {error.start:,} of the text.",
            field="path",
            way_out="Repair the file: \\ud83d without its other half was cut from an emoji.",
        ) from error


def _read_text(file: TextFile, text_field: str) -> Iterator[str]:
    with file.path.open("rb") as stream:
        data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise _too_long(file.name)
    text = decoded(file.name, data)
    if "\0" in text:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise RequestFault(
            f"{file.name}, line {line} holds NUL bytes: it is no text, or UTF-16 without its mark.",
            field="path",
            way_out="Convert it to UTF-8, or remove them: `tr -d '\\000' < OLD > NEW`.",
        )
    yield text.replace("\r\n", "\n").replace("\r", "\n")


def _read_parquet(file: TextFile, text_field: str) -> Iterator[str]:
    from pyarrow import parquet

    with _parquet_faults(file):
        whole = parquet.ParquetFile(file.path, page_checksum_verification=True)
        _refuse_column(file, whole.schema_arrow, text_field)
    with whole:
        row = 0
        for batch in _batches(file, whole, text_field):
            for value in batch.column(text_field):  # by name: a struct's fields are read along with "struct.field"
                row += 1
                text = _cell(f"{file.name}, row {row}", value)
                if text is not None:
                    yield text


def _refuse_column(file: TextFile, schema: Any, text_field: str) -> None:
    """RequestFault unless there is one column of that name, of text."""
    from pyarrow import types

    if schema.names.count(text_field) != 1:
        how_many = "no column" if text_field not in schema.names else "several columns"
        raise RequestFault(
            f"{file.name} has {how_many} {text_field!r}.",
            field="text_field",
            way_out=f"Columns: {', '.join(schema.names)}. {_NAME_THE_FIELD}",
        )
    kind = schema.field(text_field).type
    if types.is_dictionary(kind):
        kind = kind.value_type
    text = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    if not (any(is_kind(kind) for is_kind in text) or types.is_null(kind)):
        raise _no_text(file.name, text_field, f"it is a column of {kind}; all columns are {', '.join(schema.names)}")


def _batches(file: TextFile, whole: Any, text_field: str) -> Iterator[Any]:
    batches = whole.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[text_field])
    while True:
        with _parquet_faults(file):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _cell(place: str, value: Any) -> str | None:
    """Of a column of bytes, too: older writers did not say that theirs is text."""
    try:
        text = value.as_py()
        text = text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise not_utf8(place, error.object[error.start], error.start, "text") from error
    if text is not None and len(text) > MOST_BYTES:
        raise _too_long(place)
    return None if text is None else str(text)


@contextmanager
def _parquet_faults(file: TextFile) -> Iterator[None]:
    """pyarrow says OSError without a number where the data is damaged, and with one where the system fails."""
    from pyarrow import ArrowException

    try:
        yield
    except ArrowException as error:
        raise _damaged(file, f"is damaged or not Parquet: {error}") from error
    except OSError as error:
        if error.errno:
            raise
        raise _damaged(file, f"is damaged: {error}") from error


_READERS: dict[str, Callable[[TextFile, str], Iterator[str]]] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".txt": _read_text,
    ".parquet": _read_parquet,
}
