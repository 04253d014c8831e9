"""A model folder's weights, read one tensor at a time, whatever files they lie in."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from publisher.errors import RequestFault
from publisher.files.json_object import read_object, refuse_pointer
from publisher.weights.writing import Entry

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


class StoredWeights:
    """`entries`: what each weight is; `files`: file name → the names of the weights in it.

    Reads headers when it is made, and a tensor when it is asked for. Raises RequestFault if a file is missing,
    damaged, or lacks what the index promises.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = {name: opened(folder / name) for name in self._file_names}
        self.files = {name: sorted(file.keys()) for name, file in self._open.items()}
        self._place = {weight: self._open[name] for name, weights in self.files.items() for weight in weights}
        self.entries = {weight: _entry(weight, file) for weight, file in self._place.items()}
        for weight, name in (self._index or {}).items():
            if weight not in self.files[name]:
                raise RequestFault(f"{folder / name} has no tensor {weight}, which {INDEX_FILE} says is there.")

    def read(self, weight: str) -> Tensor:
        tensor: Tensor = self._place[weight].get_tensor(weight)
        return tensor

    @cached_property
    def _index(self) -> dict[str, str] | None:
        """Weight → file name; None where there is one file, which transformers prefers to an index."""
        path = self.folder / INDEX_FILE
        if (self.folder / SINGLE_FILE).exists() or not path.exists():
            return None
        weights = read_object(path).get("weight_map")
        if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights.values()):
            raise RequestFault(f"{path} is not an index of weights: it has no weight_map of tensor names to files.")
        outside = sorted(name for name in weights.values() if Path(name).name != name)
        if outside:
            raise RequestFault(f"{path} names {outside[0]!r}, which is not a file beside it.")
        return weights

    @property
    def _file_names(self) -> list[str]:
        return [SINGLE_FILE] if self._index is None else sorted(set(self._index.values()))


def write_index(folder: Path, files: dict[str, list[Entry]]) -> None:
    """The index of a model in several files, as transformers reads it."""
    entries = [(entry, name) for name, held in files.items() for entry in held]
    index = {
        "metadata": {"total_size": sum(entry.size for entry, _ in entries)},
        "weight_map": {entry.name: name for entry, name in sorted(entries, key=lambda pair: pair[0].name)},
    }
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise RequestFault(f"{path} is missing.", way_out="Save or download the model again.") from error
    except SafetensorError as error:
        refuse_pointer(_start(path), str(path))
        raise RequestFault(f"{path} is not a whole safetensors file: {error}.") from error


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1024)


def _entry(name: str, file: Any) -> Entry:
    part = file.get_slice(name)
    return Entry(name, part.get_dtype(), tuple(part.get_shape()))
