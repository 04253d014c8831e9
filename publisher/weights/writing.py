"""Writing a safetensors file one tensor at a time: only one is in memory, however large the file becomes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from publisher.weights.header import ITEM_BYTES
from publisher.weights.index import INDEX_FILE

#: bytes that one call writes. For larger ones the kernel looks for large pieces of free memory to cache them in, which
#: a virtual machine has to fetch from its host: that took up to ten times as long as the write
_AT_ONCE = 2**20


#: bytes of a tensor whose size shows late: a note in JSON
_LATE_AT_MOST = 2**16


#: what weights are computed in
_NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.float64: "F64"}


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype of weights in safetensors' words."""
    return _NAMES[dtype]


@dataclass(frozen=True)
class Entry:
    """A tensor that will be written: `dtype` in safetensors' words ("F32", "BF16")."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


class PlacedFile:
    """A safetensors file whose tensors are written in any order, each in its place; a context manager.

    Wide types come first and then by name, as safetensors itself lays files out, so that all stay aligned.
    `metadata` is the file's own, in the order of its keys: equal content gives equal bytes. `late`: names of byte
    tensors whose sizes show when they are there (`append`); they stand behind all others, and the header leaves room.
    """

    def __init__(
        self,
        path: Path,
        entries: Iterable[Entry],
        metadata: Mapping[str, str] | None = None,
        late: Sequence[str] = (),
    ) -> None:
        self.entries = sorted(entries, key=lambda entry: (-ITEM_BYTES[entry.dtype], entry.name))
        self._metadata, self._late = metadata, {name: torch.empty(0, dtype=torch.uint8) for name in late}
        self._places: dict[str, tuple[Entry, int]] = {}
        self._missing: dict[str, int] = {}
        self._counting = Lock()
        start = header([*self.entries, *(Entry(name, "U8", (_LATE_AT_MOST,)) for name in late)], metadata)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.pwrite(self._descriptor, start, 0)
        self._header_size = self._end = len(start)
        for entry in self.entries:
            self._place(entry)

    def _place(self, entry: Entry) -> None:
        self._places[entry.name] = (entry, self._end)
        self._missing[entry.name] = entry.size
        self._end += entry.size

    def append(self, name: str, content: Tensor) -> None:
        """The uint8 `content` `(bytes,)` of a late tensor; kept until the file is closed. Any thread may call."""
        assert content.dtype == torch.uint8, (name, content.dtype)
        assert 0 < len(content) <= _LATE_AT_MOST, (name, content.shape)
        assert not len(self._late[name]), f"{name} was written before"
        self._late[name] = content.cpu()

    def write(self, name: str, tensor: Tensor) -> None:
        """Put `tensor` in its place, once. Any thread may call."""
        entry, _ = self._places[name]
        assert tuple(tensor.shape) == entry.shape, (name, tuple(tensor.shape), entry.shape)
        self.write_rows(name, 0, tensor)

    def write_rows(self, name: str, first: int, rows: Tensor) -> None:
        """Put the rows of `name` from `first` on in their place, each once. Any thread may call."""
        entry, position = self._places[name]
        assert tuple(rows.shape[1:]) == entry.shape[1:], (name, tuple(rows.shape), entry.shape)
        content = rows.cpu().contiguous().flatten().view(torch.uint8).numpy().data
        assert content.nbytes == prod(rows.shape) * ITEM_BYTES[entry.dtype], (name, rows.dtype, entry.dtype)
        with self._counting:
            self._missing[name] -= content.nbytes
            assert self._missing[name] >= 0, f"{name} was written before"
        position += first * prod(entry.shape[1:]) * ITEM_BYTES[entry.dtype]
        while content:
            written = os.pwrite(self._descriptor, content[:_AT_ONCE], position)
            content, position = content[written:], position + written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write_late()
        finally:
            os.close(self._descriptor)
        missing = [name for name, size in self._missing.items() if size]
        assert kind is not None or not missing, f"never written: {sorted(missing)[:3]}"

    def _write_late(self) -> None:
        """The late tensors in order of their names, and the header anew, which then knows their sizes."""
        if not self._late:
            return
        for name, content in sorted(self._late.items()):
            assert len(content), f"never written: {name}"
            entry = Entry(name, "U8", tuple(content.shape))
            self.entries.append(entry)
            self._place(entry)
            self.write(name, content)
        os.pwrite(self._descriptor, header(self.entries, self._metadata, self._header_size), 0)


def write_tensors(
    path: Path,
    entries: Iterable[Entry],
    tensor: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write `entries`, asking `tensor` for each by name when its turn comes."""
    with PlacedFile(path, entries, metadata) as file:
        for entry in file.entries:
            file.write(entry.name, tensor(entry.name))


def header(entries: Sequence[Entry], metadata: Mapping[str, str] | None = None, size: int = 0) -> bytes:
    """The header's length (8 bytes, little endian) and its JSON, padded with spaces to 8 bytes, or to `size` in all."""
    content: dict[str, object] = {"__metadata__": dict(metadata or {"format": "pt"})}
    offset = 0
    for entry in entries:
        content[entry.name] = {
            "dtype": entry.dtype,
            "shape": entry.shape,
            "data_offsets": [offset, offset + entry.size],
        }
        offset += entry.size
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * max(-len(text) % 8, size - 8 - len(text))
    return len(text).to_bytes(8, "little") + text


def write_index(folder: Path, files: Mapping[str, Sequence[Entry]], *, count: bool = True) -> None:
    """The index of a model in several files (file name → its tensors), as transformers writes it.

    `count`: say how many parameters there are, too, which entries of weights stored compressed do not tell.
    """
    entries = {entry.name: entry for held in files.values() for entry in held}
    metadata = {"total_parameters": sum(prod(entry.shape) for entry in entries.values())} if count else {}
    metadata["total_size"] = sum(entry.size for entry in entries.values())
    placed = {entry.name: name for name, held in files.items() for entry in held}
    text = json.dumps({"metadata": metadata, "weight_map": dict(sorted(placed.items()))}, indent=2)
    (folder / INDEX_FILE).write_text(text + "\n", encoding="utf-8")
