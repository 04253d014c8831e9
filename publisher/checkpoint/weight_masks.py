"""Masks of single weights, one bit each: `pruning_masks.safetensors` of semi-structured and unstructured checkpoints.

For a weight `model.layers.0.mlp.up_proj.weight` of shape (out, in) the file has
`model.layers.0.mlp.up_proj.kept_weights`, uint8 of shape (out, ceil(in / 8)): bit k of byte j in a row, counted from
the least significant, is 1 if column 8j + k is kept. Bits beyond the last column are 0. A weight that the file does
not name is whole. `in_features` in the metadata has the columns where they are no multiple of 8.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from publisher.architecture.geometry import Geometry, LayerWidths
from publisher.architecture.masks_file import FILE_NAME, FORMAT
from publisher.architecture.structure import Shape
from publisher.checkpoint.fitting import in_words
from publisher.checkpoint.masks import load_masks
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.errors import RequestFault
from publisher.manifest import manifest as manifests
from publisher.manifest.manifest import Manifest
from publisher.weights.writing import Entry, PlacedFile

SUFFIX = ".kept_weights"
_WEIGHT = ".weight"
_COLUMNS = "in_features"


def pack(mask: Tensor) -> Tensor:
    """Bool (out, in), True where a weight is kept → uint8 (out, ceil(in / 8)) on the CPU."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy(), axis=1, bitorder="little"))


def unpack(packed: Tensor, columns: int) -> Tensor:
    """The opposite of `pack`: bool (out, columns), on the device of `packed`."""
    if packed.is_cpu:  # several times as fast as torch's shifts
        ones = np.unpackbits(packed.numpy(), axis=1, count=columns, bitorder="little")
        return torch.from_numpy(ones).view(torch.bool)
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    bits = packed.unsqueeze(-1).bitwise_right_shift(shifts).bitwise_and_(1)
    return bits.view(torch.bool).flatten(1)[:, :columns]


def count_kept(packed: Tensor) -> int:
    """How many weights a packed mask keeps."""
    return int(np.bitwise_count(packed.numpy()).sum(dtype=np.int64))


def mask_name(weight: str) -> str:
    """The mask's name in the file, of a tensor's: `….up_proj.weight` → `….up_proj.kept_weights`."""
    return weight.removesuffix(_WEIGHT) + SUFFIX


class WeightMaskWriter:
    """Writes the file, masks in any order, one in memory at a time; a context manager.

    `shapes`: (out, in) of every weight that loses something, by the name it has in the weight files.
    """

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, int]]) -> None:
        entries = [Entry(mask_name(name), "U8", (rows, -(-columns // 8))) for name, (rows, columns) in shapes.items()]
        odd = {mask_name(name): columns for name, (_, columns) in sorted(shapes.items()) if columns % 8}
        metadata = {"format": FORMAT, _COLUMNS: json.dumps(odd, separators=(",", ":"))}
        self._file = PlacedFile(path, entries, metadata)

    def write(self, name: str, mask: Tensor) -> None:
        """`mask` bool (out, in), for the weight `name`. Any thread may call."""
        self._file.write(mask_name(name), pack(mask))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)


class WeightMasks:
    """The file (PruningMasks), read one mask at a time when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Raises RequestFault if the file is missing, damaged or has no masks of single weights."""
        self.path = path
        if not path.is_file():
            raise RequestFault(
                f"{path} does not exist.", way_out="A LoRAM checkpoint has its masks beside the weights."
            )
        self._file = _opened(path)
        metadata = self._file.metadata() or {}
        if metadata.get("format") != FORMAT or _COLUMNS not in metadata:
            raise RequestFault(f"{path} has no masks of single weights.")
        self._columns: dict[str, int] = json.loads(metadata[_COLUMNS])
        self._names = frozenset(self._file.keys())
        for name in self._names:
            _refuse_other(name, self._file.get_slice(name))

    @property
    def weights(self) -> list[str]:
        """The weights that lost something, sorted, by their names in the weight files."""
        return sorted(name.removesuffix(SUFFIX) + _WEIGHT for name in self._names)

    def __contains__(self, weight: str) -> bool:
        return mask_name(weight) in self._names

    def shape(self, weight: str) -> tuple[int, int]:
        """(out, in) of the weight."""
        name = mask_name(weight)
        rows, packed = self._file.get_slice(name).get_shape()
        return rows, self._columns.get(name, 8 * packed)

    def kept(self, weight: str) -> int:
        """How many entries of the weight are kept."""
        return count_kept(self.packed(weight))

    def removed(self) -> int:
        """How many entries all weights together lost; reads every mask once."""
        return sum(prod(self.shape(weight)) - self.kept(weight) for weight in self.weights)

    def packed(self, weight: str) -> Tensor:
        """As the file has it: uint8 (out, ceil(in / 8))."""
        tensor: Tensor = self._file.get_tensor(mask_name(weight))
        return tensor

    def mask(self, weight: str) -> Tensor:
        """Bool (out, in), True where the weight is kept."""
        return unpack(self.packed(weight), self.shape(weight)[1])

    @property
    def update_masks(self) -> Self:
        return self

    @property
    def count_as_weights(self) -> bool:
        return True

    def layer_of(self, name: str) -> None:
        return None

    def parameter(self, name: str) -> None:
        """Every parameter has the base model's shape, and which those are these masks do not say."""
        return None

    def shapes_left(self) -> dict[str, Shape]:
        return {weight: self.shape(weight) for weight in self.weights}

    def mask_of(self, weight: str) -> Tensor | None:
        return self.mask(weight) if weight in self else None

    def fit(self, geometry: Geometry) -> bool:
        return True

    def unfit(self, shapes: Mapping[str, Shape], *, base: bool = False) -> Iterator[str]:
        """A weight that is stored compressed has one axis, of the kept entries."""
        for weight in self.weights:
            found, full = shapes.get(weight), self.shape(weight)
            if found is None:
                yield f"the files have no {weight}, which {FILE_NAME} has a mask for"
            elif len(found) == 1 and not base:
                if found != (self.kept(weight),):
                    yield f"{weight} is stored as {found[0]:,} values, and its mask keeps {self.kept(weight):,}"
            elif found != full:
                yield f"{weight} has shape {in_words(found)}, its mask is for {in_words(full)}"

    def values(self, shapes: Mapping[str, Shape]) -> tuple[int, int]:
        full = {weight: self.shape(weight) for weight in self.weights if weight in shapes}
        whole = sum(map(prod, (dict(shapes) | full).values()))
        return whole, whole - self.removed()

    def contradictions(self, manifest: Manifest, config: Mapping[str, Any]) -> Iterator[str]:
        if manifest.widths != manifest.base_widths:
            yield f"{FILE_NAME} removes single weights, and {manifests.FILE_NAME} whole heads or neurons"

    def left(self, geometry: Geometry) -> tuple[Sequence[LayerWidths], int]:
        return geometry.full_widths, geometry.parameters() - self.removed()

    def kept_shares(self, manifest: Manifest) -> dict[str, list[float]]:
        """The first number in a weight's name is its layer's."""
        kept, full = [0] * len(manifest.widths), [0] * len(manifest.widths)
        for weight in self.weights:
            found = re.search(r"\.(\d+)\.", weight)
            if found is not None and int(found[1]) < len(full):
                kept[int(found[1])] += self.kept(weight)
                full[int(found[1])] += prod(self.shape(weight))
        shares = [left / whole if whole else 1.0 for left, whole in zip(kept, full, strict=True)]
        return {"weights of pruned matrices": shares}


def open_masks(path: Path) -> PruningMasks:
    """Either kind of masks file; raises RequestFault if it is neither."""
    if path.is_file() and is_of_weights(path):
        return WeightMasks(path)
    return load_masks(path)


def is_of_weights(path: Path) -> bool:
    """Whether a masks file has masks of single weights, not of heads, neurons and experts."""
    return _COLUMNS in (_opened(path).metadata() or {})


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise RequestFault(f"{path} is not a whole safetensors file: {error}.") from error


def _refuse_other(name: str, part: Any) -> None:
    shape, dtype = part.get_shape(), part.get_dtype()
    if not name.endswith(SUFFIX) or dtype != "U8" or len(shape) != 2:
        raise RequestFault(f"mask {name} of {dtype} and shape {tuple(shape)} is not of the format: uint8 in 2 axes.")
