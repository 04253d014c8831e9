"""The safetensors files of a model: where each tensor is, and tensors mapped from disk.

A mapped tensor takes memory while its pages are looked at and gives it back when it is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import safe_open
from torch import Tensor

from publisher.errors import RequestFault
from publisher.files.reading import BASE, reading
from publisher.weights.header import read_file_header
from publisher.weights.index import weight_files

#: safetensors' names of the types that weights may have
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

#: values whose sum is looked at: 2 MiB in fp32, which stays in a core's cache
_SUMMED_AT_ONCE = 2**19


@dataclass(frozen=True)
class StoredTensor:
    """`dtype` is safetensors' word; `position`: the byte of the file where the tensor begins."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    position: int


@dataclass(frozen=True)
class TensorFiles:
    """What the headers of a model's shards say; nothing is kept open."""

    tensors: dict[str, StoredTensor]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Raises RequestFault if a shard is missing or truncated, or holds weights of a type that is none of ours."""
        with reading(BASE, folder):
            paths = weight_files(folder)
        tensors: dict[str, StoredTensor] = {}
        for path in paths:
            with reading(BASE, path), safe_open(path, framework="pt"):
                header = read_file_header(path)  # opening it has looked whether the header fits the file
            for name, entry in header.tensors.items():
                tensors[name] = StoredTensor(path, entry.dtype, entry.shape, header.start + entry.begin)
        return cls(tensors)

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Tensors mapped from disk, in the types that they have there; they must not be written to."""
        by_path: dict[Path, list[str]] = {}
        for name in names:
            by_path.setdefault(self.tensors[name].path, []).append(name)
        found: dict[str, Tensor] = {}
        for path, wanted in by_path.items():
            with reading(BASE, path), safe_open(path, framework="pt") as file:
                found |= {name: file.get_tensor(name) for name in wanted}
        return found

    def place(self, name: str) -> tuple[str, int]:
        """File name and position: who reads in this order reads a disk from its beginning to its end."""
        stored = self.tensors[name]
        return stored.path.name, stored.position

    def dtype(self, name: str) -> torch.dtype:
        """Raises RequestFault if it is not a floating-point type."""
        stored = self.tensors[name]
        if stored.dtype not in DTYPES:
            raise RequestFault(
                f"tensor {name} in {stored.path.name} is stored as {stored.dtype}.",
                way_out=f"Save the base model as one of {', '.join(DTYPES)}.",
            )
        return DTYPES[stored.dtype]


def all_finite(tensor: Tensor) -> bool:
    """A sum is much cheaper than a look at each value, and not finite if one value is not."""
    return all(
        bool(part.to(torch.promote_types(part.dtype, torch.float32)).sum().isfinite()) or bool(part.isfinite().all())
        for part in torch.split(tensor.flatten(), _SUMMED_AT_ONCE)
    )
