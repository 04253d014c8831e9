"""A model's folder as stages read it: raw config, geometry, and where the weights are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from publisher.architecture.geometry import Geometry
from publisher.base_model.facts import INDEX_FILE, SINGLE_FILE
from publisher.families.describe import describe
from publisher.files.json_object import read_object


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as it stands."""
    return read_object(folder / "config.json")


def read_geometry(folder: Path) -> Geometry:
    return describe(read_config(folder))


def weight_files(folder: Path) -> list[Path]:
    """The shards in order of their names; the single file where there is one, as transformers chooses."""
    if (folder / SINGLE_FILE).exists():
        return [folder / SINGLE_FILE]
    shards = set(read_object(folder / INDEX_FILE)["weight_map"].values())
    return [folder / name for name in sorted(shards)]
