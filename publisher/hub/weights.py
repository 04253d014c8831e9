"""Parameter counts from the headers of safetensors files; weights are not read."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from publisher.hub.reading import StoredContent

# safetensors itself refuses longer headers.
_MAX_HEADER_BYTES = 100_000_000


def count_parameters(files: Iterable[StoredContent]) -> dict[str, int]:
    """Elements per dtype name ("BF16", "U8", …) over all files; files that are not safetensors count nothing.

    Counts are remembered by content. Raises Damaged.
    """
    total: Counter[str] = Counter()
    for content in files:
        content.require()
        total.update(dict(_count(content)))
    return dict(total)


@lru_cache(maxsize=4096)
def _count(content: StoredContent) -> tuple[tuple[str, int], ...]:
    counts: Counter[str] = Counter()
    for name, tensor in read_header(content).items():
        if name != "__metadata__" and isinstance(tensor, dict) and "shape" in tensor:
            counts[str(tensor.get("dtype"))] += math.prod(tensor["shape"])
    return tuple(counts.items())


def read_header(content: StoredContent) -> dict[str, object]:
    """The JSON header; empty where the file has none that can be read. Raises Damaged."""
    length = int.from_bytes(_read(content, 0, 8), "little")
    if length > min(_MAX_HEADER_BYTES, content.size):
        return {}
    try:
        header = json.loads(_read(content, 8, 8 + length))
    except ValueError:
        return {}
    return header if isinstance(header, dict) else {}


def _read(content: StoredContent, start: int, stop: int) -> bytes:
    return b"".join(content.blocks(start, min(stop, content.size)))
