"""Stylesheet, script and icon: our own files, named by their content so that browsers keep them for good."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "assets"
MEDIA_TYPES = {
    "dashboard.css": "text/css",
    "dashboard.js": "text/javascript",
    "live.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


@cache
def address(name: str) -> str:
    """Where a page finds an asset; a changed file has another address."""
    digest = hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()
    return f"/assets/{name}?v={digest[:12]}"
