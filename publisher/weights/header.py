"""The header of a safetensors file: names, types and shapes of its tensors, without reading the weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeGuard

from publisher.errors import UnsupportedModel
from publisher.files.json_object import refuse_pointer

#: (first byte, byte after the last) → those bytes of a file
ReadRange = Callable[[int, int], bytes]

#: bytes of one element
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip

_LENGTH_BYTES = 8
#: read at once, since a request to a Hub costs more than these bytes; nearly every header is smaller
_FIRST_READ = 2**17
#: the safetensors library refuses larger headers, too
_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class TensorEntry:
    """`begin` and `end` count bytes from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class WeightHeader:
    """`raw` is the header's JSON as it stands in the file."""

    raw: bytes
    tensors: dict[str, TensorEntry]

    @property
    def start(self) -> int:
        """The byte of the file from which `begin` and `end` of its tensors count."""
        return _LENGTH_BYTES + len(self.raw)

    def elements(self) -> Counter[str]:
        """Values by safetensors' name of their type ("BF16", "U8")."""
        counts: Counter[str] = Counter()
        for entry in self.tensors.values():
            counts[entry.dtype] += prod(entry.shape)
        return counts


def read_header(name: str, size: int, read: ReadRange) -> WeightHeader:
    """Read and check the header of file `name` of `size` bytes.

    Raises UnsupportedModel if the file is truncated, or if the header is not what safetensors writes: every
    tensor in its place, no gap, no byte missing and none left over.
    """
    start = read(0, min(size, _FIRST_READ))
    refuse_pointer(start, name, UnsupportedModel)
    length = int.from_bytes(start[:_LENGTH_BYTES], "little") if size >= _LENGTH_BYTES else 0
    if not 0 < length <= _MAX_HEADER_BYTES:
        raise _damaged(name, f"has {size} bytes and announces a header of {length}; it is not a safetensors file")
    if _LENGTH_BYTES + length > size:
        raise _damaged(name, f"is truncated inside its header: {size} bytes of {_LENGTH_BYTES + length}")
    raw = start[_LENGTH_BYTES : _LENGTH_BYTES + length]
    if len(raw) < length:
        raw += read(_LENGTH_BYTES + len(raw), _LENGTH_BYTES + length)
    tensors = {key: _entry(name, key, value) for key, value in _parse(name, raw).items() if key != "__metadata__"}
    _check_layout(name, tensors, size - _LENGTH_BYTES - length)
    return WeightHeader(raw, tensors)


def read_file_header(path: Path) -> WeightHeader:
    """`read_header` of a file here. Raises OSError, too."""
    with path.open("rb") as file:

        def read(start: int, end: int) -> bytes:
            file.seek(start)
            return file.read(end - start)

        return read_header(path.name, path.stat().st_size, read)


def _parse(name: str, raw: bytes) -> dict[str, object]:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _damaged(name, f"has a header that is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _damaged(name, "has a header that is not a JSON object")
    metadata = header.get("__metadata__") or {}
    if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise _damaged(name, "has a header whose __metadata__ is not names and texts")
    return header


def _entry(name: str, tensor: str, value: object) -> TensorEntry:
    fields = value if isinstance(value, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not (isinstance(dtype, str) and _are_counts(shape) and _are_counts(offsets) and len(offsets) == 2):
        raise _damaged(name, f"describes tensor {tensor} without dtype, shape and data_offsets")
    entry = TensorEntry(dtype, tuple(shape), offsets[0], offsets[1])
    item = ITEM_BYTES.get(dtype)
    if item is not None and entry.end - entry.begin != prod(entry.shape) * item:
        raise _damaged(
            name,
            f"gives tensor {tensor} {entry.end - entry.begin} bytes, but {dtype} of shape {entry.shape} "
            f"takes {prod(entry.shape) * item}",
        )
    return entry


def _are_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_layout(name: str, tensors: dict[str, TensorEntry], data_bytes: int) -> None:
    position = 0
    for key, entry in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position or entry.end < entry.begin:
            raise _damaged(name, f"places tensor {key} at byte {entry.begin} where byte {position} is next")
        position = entry.end
    if position > data_bytes:
        raise _damaged(name, f"is truncated: its header describes {position} bytes of weights and {data_bytes} follow")
    if position < data_bytes:
        raise _damaged(name, f"holds {data_bytes - position} bytes that its header does not describe")


def _damaged(name: str, what: str) -> UnsupportedModel:
    return UnsupportedModel(f"{name} {what}.", way_out="Fetch or save the file again.")
