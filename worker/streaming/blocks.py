"""Tensors read from disk a block of rows at a time, into memory that is used again.

Mapping a file is as good for a tensor that is looked at once; but pages that are mapped, and memory that is asked for
and given back, cost more than the copy where it goes through gigabytes (on a virtual machine several times as much).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from publisher.errors import RequestFault
from publisher.files.reading import BASE, reading
from worker.streaming.files import StoredTensor, TensorFiles

#: bytes of a block: few calls, and what works on it finds it in a core's cache
_AT_ONCE = 2**22
#: threads that read at once: one waits for the disk while the other works on what it has
READERS = 2


class BlockReader:
    """The tensors of `files`, from any thread; each thread has memory of its own. A context manager."""

    def __init__(self, files: TensorFiles, at_once: int = _AT_ONCE) -> None:
        self.files = files
        self._at_once = at_once
        self._memory = threading.local()
        self._open = ExitStack()
        self._descriptors = {
            path: self._open.enter_context(_Descriptor(path))
            for path in sorted({tensor.path for tensor in files.tensors.values()})
        }

    def blocks(self, name: str) -> Iterator[tuple[slice, Tensor]]:
        """(rows, `tensor[rows]`) of tensor `name` `(rows, …)`, in order; a block is there until the next is asked for.

        Raises RequestFault if the file ends early.
        """
        stored, dtype = self.files.tensors[name], self.files.dtype(name)
        shape = stored.shape or (1,)
        row_bytes = prod(shape[1:]) * dtype.itemsize
        step = max(1, self._at_once // max(1, row_bytes))
        memory = self._buffer(min(step, shape[0]) * row_bytes)
        for start in range(0, shape[0], step):
            rows = slice(start, min(start + step, shape[0]))
            content = memory[: (rows.stop - start) * row_bytes]
            self._fill(content, stored, start * row_bytes)
            yield rows, content.view(dtype).view(rows.stop - start, *shape[1:])

    def _fill(self, content: Tensor, stored: StoredTensor, offset: int) -> None:
        view, position = content.numpy().data, stored.position + offset
        while view:
            with reading(BASE, stored.path):
                read = os.preadv(self._descriptors[stored.path].number, [view], position)
            if read == 0:
                raise RequestFault(
                    f"{stored.path.name} of the base model ends early.", way_out="Fetch or save the file again."
                )
            view, position = view[read:], position + read

    def _buffer(self, size: int) -> Tensor:
        held: Tensor | None = getattr(self._memory, "buffer", None)
        if held is None or len(held) < size:
            held = self._memory.buffer = torch.empty(size, dtype=torch.uint8)
        return held

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()


class _Descriptor:
    """A file opened for reading, closed with its context."""

    def __init__(self, path: Path) -> None:
        with reading(BASE, path):
            self.number = os.open(path, os.O_RDONLY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.number)
