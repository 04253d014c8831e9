"""A model's folder as stages read it: raw config, geometry, and where the weights are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from publisher.architecture import Geometry, describe
from publisher.base_model import INDEX_FILE, SINGLE_FILE


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as it stands."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    return config


def read_geometry(folder: Path) -> Geometry:
    return describe(read_config(folder))


def weight_files(folder: Path) -> list[Path]:
    """The shards in order of their names; the single file where there is one, as transformers chooses."""
    if (folder / SINGLE_FILE).exists():
        return [folder / SINGLE_FILE]
    shards = set(json.loads((folder / INDEX_FILE).read_bytes())["weight_map"].values())
    return [folder / name for name in sorted(shards)]
