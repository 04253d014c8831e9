"""A base model's folder as stages read it: raw config, geometry, and weights one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from publisher.architecture import Geometry
from publisher.base_model import INDEX_FILE, SINGLE_FILE
from publisher.errors import RequestFault


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as it stands."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    return config


def read_geometry(folder: Path) -> Geometry:
    return Geometry.from_config(read_config(folder))


def weight_files(folder: Path) -> list[Path]:
    """The shards in order of their names; the single file where there is one, as transformers chooses."""
    if (folder / SINGLE_FILE).exists():
        return [folder / SINGLE_FILE]
    shards = set(json.loads((folder / INDEX_FILE).read_bytes())["weight_map"].values())
    return [folder / name for name in sorted(shards)]


def tensors_of(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of one safetensors file by name, mapped from disk and read when it is used.

    Raises RequestFault if the file is damaged.
    """
    with _damage_as_fault(path), safe_open(path, framework="pt") as file:
        for name in sorted(file.keys()):
            yield name, file.get_tensor(name)


@contextmanager
def _damage_as_fault(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise RequestFault(f"{path.name} of the base model is missing.", way_out="Register it again.") from error
    except SafetensorError as error:
        raise RequestFault(
            f"{path.name} of the base model is damaged: {error}.", way_out="Fetch or save the file again."
        ) from error
