"""Parameter counts from the headers of safetensors files; weights are not read."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

# safetensors itself refuses longer headers.
_MAX_HEADER_BYTES = 100_000_000


def count_parameters(files: Iterable[Path]) -> dict[str, int]:
    """Elements per dtype name ("BF16", "U8", …) over all files; files that are not safetensors count nothing.

    Files must be immutable: counts are remembered by path.
    """
    total: Counter[str] = Counter()
    for file in files:
        total.update(dict(_count_file(file)))
    return dict(total)


@lru_cache(maxsize=4096)
def _count_file(file: Path) -> tuple[tuple[str, int], ...]:
    counts: Counter[str] = Counter()
    for name, tensor in read_header(file).items():
        if name != "__metadata__" and isinstance(tensor, dict) and "shape" in tensor:
            counts[str(tensor.get("dtype"))] += math.prod(tensor["shape"])
    return tuple(counts.items())


def read_header(file: Path) -> dict[str, object]:
    """The JSON header; empty where the file has none that can be read."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(_MAX_HEADER_BYTES, file.stat().st_size):
            return {}
        try:
            header = json.loads(stream.read(length))
        except ValueError:
            return {}
    return header if isinstance(header, dict) else {}
