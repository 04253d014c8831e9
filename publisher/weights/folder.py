"""A model folder's weights, read one tensor at a time, whatever files they lie in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from publisher.errors import RequestFault
from publisher.files.json_object import refuse_pointer
from publisher.weights.index import INDEX_FILE, read_index, weight_files
from publisher.weights.writing import Entry

#: safetensors' names of what weights are stored as that are numbers by themselves, not packed
FLOATS = ("F64", "F32", "F16", "BF16")


class StoredWeights:
    """`entries`: what each weight is; `files`: file name → the names of the weights in it.

    Reads headers when it is made, and a tensor when it is asked for. Raises RequestFault if a file is missing,
    damaged, or lacks what the index promises.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = {path.name: opened(path) for path in weight_files(folder)}
        self.files = {name: sorted(file.keys()) for name, file in self._open.items()}
        self._place = {weight: self._open[name] for name, weights in self.files.items() for weight in weights}
        self.entries = {weight: _entry(weight, file) for weight, file in self._place.items()}
        for weight, name in (read_index(folder) or {}).items():
            if weight not in self.files[name]:
                raise RequestFault(f"{folder / name} has no tensor {weight}, which {INDEX_FILE} says is there.")

    def read(self, weight: str) -> Tensor:
        tensor: Tensor = self._place[weight].get_tensor(weight)
        return tensor


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
