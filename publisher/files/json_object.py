"""JSON objects in files that other people's tools wrote: one reader, which names what is wrong and where."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from publisher.errors import RequestFault
from publisher.files.faults import POINTERS, decoded, file_faults, refuse_foreign

#: an index or a tokenizer of a large vocabulary has tens of MB
MAX_BYTES = 64 * 2**20
#: config, index and tokenizer files nest less than ten deep; readers that recurse give up at some hundreds
MAX_DEPTH = 64


def parse_object(content: bytes, where: str, fault: type[RequestFault] = RequestFault) -> dict[str, Any]:
    """The JSON object that is all of `content`; `where` names the file for people. A byte order mark is passed over.

    Raises `fault` for anything else: a Git LFS pointer, another encoding, bad JSON, too large, nested too deep.
    """
    refuse_pointer(content, where, fault)
    if len(content) > MAX_BYTES:
        raise fault(f"{where} has {len(content)} bytes; at most {MAX_BYTES} are read.")
    text = decoded(where, content, field=None, fault=fault)
    try:
        value = json.loads(text)
    except ValueError as error:
        raise fault(f"{where} is not JSON: {error}.", way_out="Fetch or save the file again.") from error
    except RecursionError as error:
        raise fault(f"{where} is nested too deep; {MAX_DEPTH} levels are read.") from error
    if not isinstance(value, dict):
        raise fault(f"{where} is not a JSON object.")
    if not all(depth <= MAX_DEPTH for depth, _, _ in _walk(value)):
        raise fault(f"{where} is nested too deep; {MAX_DEPTH} levels are read.")
    if "\\ud" in text or "\\uD" in text:
        _refuse_halves(value, where, fault)
    return value


def read_object(path: Path) -> dict[str, Any]:
    """`parse_object` of a file. Raises RequestFault, too, if it cannot be read."""
    with file_faults(str(path), field=None):
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise RequestFault(f"{path} has {size} bytes; at most {MAX_BYTES} are read.")
        content = path.read_bytes()
    return parse_object(content, str(path))


def refuse_pointer(content: bytes, where: str, fault: type[RequestFault] = RequestFault) -> None:
    """Raises `fault` for what Git leaves in place of a file that Git LFS or git-annex holds."""
    refuse_foreign(where, content, POINTERS, field=None, fault=fault)


def refuse_nan(value: Mapping[str, Any], where: str, fault: type[RequestFault] = RequestFault) -> None:
    """Raises `fault` naming the first key whose number is NaN, which no size or factor can be."""
    for _, key, item in _walk(value):
        if isinstance(item, float) and math.isnan(item):
            raise fault(f"{where} has {key} = NaN.", way_out="Write the number that the model was trained with.")


def _refuse_halves(value: Mapping[str, Any], where: str, fault: type[RequestFault]) -> None:
    """JSON's escapes can write halves of characters, which no file, database or tokenizer takes."""
    for _, key, item in _walk(value):
        try:
            f"{key}{item if isinstance(item, str) else ''}".encode()
        except UnicodeEncodeError as error:
            raise fault(
                f"{where} holds half of a surrogate pair in {key}.",
                way_out="Write the whole character: \\ud83d without its other half was cut from an emoji.",
            ) from error


def _walk(value: object) -> Iterator[tuple[int, str, object]]:
    """(depth, "rope_scaling.factor", value) of everything in it; without recursion, whatever the depth."""
    waiting: list[tuple[int, str, object]] = [(0, "", value)]
    while waiting:
        depth, key, item = waiting.pop()
        yield depth, key, item
        inner = item.items() if isinstance(item, Mapping) else enumerate(item) if isinstance(item, list) else ()
        waiting += [(depth + 1, f"{key}.{name}" if key else str(name), each) for name, each in inner]
