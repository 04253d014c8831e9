"""Writing a safetensors file one tensor at a time: only one is in memory, however large the file becomes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

#: safetensors' own names, and bytes per element
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class Entry:
    """A tensor that will be written: `dtype` in safetensors' words ("F32", "BF16")."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return prod(self.shape) * _ITEM_BYTES[self.dtype]


def write_tensors(path: Path, entries: Sequence[Entry], tensor: Callable[[str], Tensor]) -> None:
    """Write `entries`, asking `tensor` for each by name when its turn comes.

    Wide types come first and then by name, as safetensors itself lays files out, so that all stay aligned.
    """
    ordered = sorted(entries, key=lambda entry: (-_ITEM_BYTES[entry.dtype], entry.name))
    with path.open("wb") as file:
        file.write(header(ordered))
        for entry in ordered:
            data = tensor(entry.name).contiguous().flatten().view(torch.uint8)
            assert data.numel() == entry.size, entry
            file.write(data.numpy().data)


def header(entries: Sequence[Entry]) -> bytes:
    """The header's length (8 bytes, little endian) and its JSON, padded with spaces to 8 bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": entry.shape,
            "data_offsets": [offset, offset + entry.size],
        }
        offset += entry.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
