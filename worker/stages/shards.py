"""A model's safetensors files, written in any order: every tensor has its place before the first one is there.

So a model that is made layer by layer needs the memory of one tensor, however its layers lie across files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from publisher.base_model import INDEX_FILE
from publisher.checkpoint.streaming import Entry, header
from worker.stages.folder import write_json
from worker.streaming.files import DTYPES

_DTYPES = DTYPES | {"U8": torch.uint8, "I32": torch.int32}


class ShardWriter:
    """Files in `folder` with the tensors of `files` (file name → entries); a context manager that ends complete.

    With several files there is an index, as transformers writes it.
    """

    def __init__(self, folder: Path, files: Mapping[str, Iterable[Entry]]) -> None:
        self._places: dict[str, tuple[int, Entry, int]] = {}
        self._open: list[int] = []
        for name, entries in files.items():
            self._start(folder / name, sorted(entries, key=lambda entry: (-_DTYPES[entry.dtype].itemsize, entry.name)))
        if len(files) > 1:
            write_json(folder / INDEX_FILE, _index(files))

    def _start(self, path: Path, entries: list[Entry]) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._open.append(descriptor)
        start = header(entries)
        os.pwrite(descriptor, start, 0)
        position = len(start)
        for entry in entries:
            self._places[entry.name] = (descriptor, entry, position)
            position += entry.size

    def write(self, name: str, tensor: Tensor) -> None:
        """Put `tensor` in its place; its shape and dtype are those of the entry. Any thread may call."""
        descriptor, entry, position = self._places.pop(name)
        assert tuple(tensor.shape) == entry.shape, (name, tuple(tensor.shape), entry.shape)
        assert tensor.dtype == _DTYPES[entry.dtype], (name, tensor.dtype, entry.dtype)
        content = tensor.contiguous().flatten().view(torch.uint8).numpy().data
        while content:
            written = os.pwrite(descriptor, content, position)
            content, position = content[written:], position + written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        assert kind is not None or not self._places, f"never written: {sorted(self._places)[:3]}"


def _index(files: Mapping[str, Iterable[Entry]]) -> dict[str, object]:
    placed = {entry.name: (name, entry) for name, entries in files.items() for entry in entries}
    return {
        "metadata": {
            "total_parameters": sum(prod(entry.shape) for _, entry in placed.values()),
            "total_size": sum(entry.size for _, entry in placed.values()),
        },
        "weight_map": {tensor: name for tensor, (name, _) in sorted(placed.items())},
    }
