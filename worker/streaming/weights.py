"""A model's folder as stages read it: raw config and geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from publisher.architecture.geometry import Geometry
from publisher.families.describe import describe
from publisher.files.json_object import read_object


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as it stands."""
    return read_object(folder / "config.json")


def read_geometry(folder: Path) -> Geometry:
    return describe(read_config(folder))
