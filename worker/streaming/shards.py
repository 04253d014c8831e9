"""A model's safetensors files, written in any order: every tensor has its place before the first one is there.

So a model that is made layer by layer needs the memory of one tensor, however its layers lie across files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor

from publisher.weights.writing import Entry, PlacedFile, write_index


class ShardWriter:
    """Files in `folder` with the tensors of `files` (file name → entries); a context manager that ends complete.

    With several files there is an index, as transformers writes it. `late`: file name → names of byte tensors whose
    sizes show when they are there.
    """

    def __init__(
        self,
        folder: Path,
        files: Mapping[str, Sequence[Entry]],
        late: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._folder, self._open = folder, ExitStack()
        self._placed: dict[str, PlacedFile] = {}
        self._files: dict[str, PlacedFile] = {}
        for name, entries in files.items():
            waiting = (late or {}).get(name, ())
            self._placed[name] = self._open.enter_context(PlacedFile(folder / name, entries, late=waiting))
            self._files |= dict.fromkeys([*(entry.name for entry in entries), *waiting], self._placed[name])

    def write(self, name: str, tensor: Tensor) -> None:
        """Put `tensor` in its place; its shape and dtype are those of the entry. Any thread may call."""
        self._files[name].write(name, tensor)

    def write_rows(self, name: str, first: int, rows: Tensor) -> None:
        """Put the rows of `name` from `first` on in their place. Any thread may call."""
        self._files[name].write_rows(name, first, rows)

    def append(self, name: str, content: Tensor) -> None:
        """The bytes of a late tensor. Any thread may call."""
        self._files[name].append(name, content)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
        if kind is None and len(self._placed) > 1:
            write_index(self._folder, {name: file.entries for name, file in self._placed.items()})
