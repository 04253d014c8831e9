"""Stylesheets, scripts and icon: our own files, named by their content so that browsers keep them for good."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "assets"
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Asset:
    """`packed`: the content as gzip."""

    content: bytes
    packed: bytes
    media_type: str


def names() -> list[str]:
    """Of all assets."""
    return sorted(file.name for file in FOLDER.iterdir() if file.suffix in _MEDIA_TYPES)


@cache
def asset(name: str) -> Asset:
    """One of `names()`."""
    file = FOLDER / name
    content = file.read_bytes()
    return Asset(content, gzip.compress(content, mtime=0), _MEDIA_TYPES[file.suffix])


@cache
def address(name: str) -> str:
    """Where a page finds an asset; a changed file has another address."""
    return f"/assets/{name}?v={hashlib.sha256(asset(name).content).hexdigest()[:12]}"
