"""Which heads, neurons and experts of the base model a checkpoint kept: `pruning_masks.safetensors`.

One int32 tensor of sorted indices for each layer and unit that lost something:
`model.layers.{i}.self_attn.kept_kv_heads`, `model.layers.{i}.mlp.kept_neurons`, `model.layers.{i}.mlp.kept_experts`.
The file's metadata holds the base model's structure, so that the file alone says, for every family, where each row
and column of the checkpoint came from. Non-structured checkpoints: see weight_masks.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from publisher.architecture.geometry import Geometry, LayerWidths
from publisher.architecture.masks_file import FILE_NAME, FORMAT, PLACES
from publisher.architecture.structure import LayerKind, Shape, TensorSpec, Unit
from publisher.architecture.structure_json import from_json, to_json
from publisher.checkpoint import unit_widths
from publisher.checkpoint.fitting import by_layer, left_of, unfit
from publisher.checkpoint.pruning_masks import KeptIndices, MaskedParameter
from publisher.errors import RequestFault
from publisher.manifest import manifest as manifests
from publisher.manifest.manifest import Manifest

_UNITS = {place: unit for unit, place in PLACES.items()}


@dataclass(frozen=True)
class Masks:
    """Kept units by layer (PruningMasks); a unit of a layer that is not named is whole.

    Layer `i` of the base model is of kind `kinds[kind_of[i]]` (publisher.architecture), and its tensors are named
    `prefix + str(i) + "." + …`. Modules are named as transformers names them within a layer: `self_attn.q_proj`.
    """

    kinds: tuple[LayerKind, ...]
    kind_of: tuple[int, ...]
    kept: Mapping[tuple[int, Unit], Sequence[int]] = field(default_factory=dict)
    prefix: str = "model.layers."

    def __post_init__(self) -> None:
        """Raises RequestFault naming the layer whose indices are not sorted, unique and of units that it has."""
        if any(not 0 <= kind < len(self.kinds) for kind in self.kind_of):
            raise RequestFault(f"masks name kinds of layers {self.kind_of}, of which {len(self.kinds)} are described.")
        for (layer, unit), kept in self.kept.items():
            _refuse_indices(f"layer {layer}, kept_{unit}", kept, self.full(layer, unit))

    @property
    def layers(self) -> int:
        return len(self.kind_of)

    def kind(self, layer: int) -> LayerKind:
        return self.kinds[self.kind_of[layer]]

    def full(self, layer: int, unit: Unit) -> int:
        """How many of `unit` the base model's layer has; 0 if there is no such layer."""
        return self.kind(layer).units.get(unit, 0) if 0 <= layer < self.layers else 0

    def counts(self, layer: int) -> dict[Unit, int]:
        """How many of each unit are left in the layer."""
        units = self.kind(layer).units
        return {unit: len(self.kept.get((layer, unit), range(full))) for unit, full in units.items()}

    def spec(self, layer: int, name: str) -> TensorSpec | None:
        """What the base model's layer has under `name` (`self_attn.q_proj.weight`); None: nothing."""
        return self.kind(layer).parameters.get(name)

    def cut(self, layer: int, name: str) -> tuple[int, KeptIndices] | None:
        """The axis of parameter `name` that lost entries, and those that are left; None: it is whole."""
        spec = self.spec(layer, name)
        if spec is None or not any((layer, part.unit) in self.kept for part in spec.parts):
            return None
        return spec.axis, KeptIndices(self._entries(layer, spec), spec.shape[spec.axis])

    @property
    def update_masks(self) -> None:
        return None

    @property
    def count_as_weights(self) -> bool:
        return False

    def layer_of(self, name: str) -> int | None:
        return None if (found := self._place(name)) is None else found[0]

    def parameter(self, name: str) -> MaskedParameter | None:
        place = self._place(name)
        spec = None if place is None else self.spec(*place)
        if place is None or spec is None:
            return None
        return MaskedParameter(spec.shape, spec.pruned_shape(self.counts(place[0])), self.cut(*place))

    def shapes_left(self) -> dict[str, Shape]:
        return {
            f"{self.prefix}{layer}.{name}": shape
            for layer in range(self.layers)
            for name, shape in left_of(self.kind(layer), self.counts(layer)).items()
        }

    def mask_of(self, weight: str) -> None:
        return None

    def fit(self, geometry: Geometry) -> bool:
        return (geometry.kinds, geometry.kind_of) == (self.kinds, self.kind_of)

    def unfit(self, shapes: Mapping[str, Shape], *, base: bool = False) -> Iterator[str]:
        found = by_layer(shapes, self.prefix)
        for layer in range(self.layers):
            expected = left_of(self.kind(layer), self.kind(layer).units if base else self.counts(layer))
            yield from unfit(f"{self.prefix}{layer}.", found.get(layer, {}), expected, others=base)
        further = sorted(layer for layer in found if layer >= self.layers)
        if further and not base:
            yield f"the files hold {self.prefix}{further[0]}, and {FILE_NAME} has {self.layers} layers"

    def values(self, shapes: Mapping[str, Shape]) -> tuple[int, int]:
        stored = sum(map(prod, shapes.values()))
        lost = sum(
            prod(spec.shape) - prod(spec.pruned_shape(self.counts(layer)))
            for layer in range(self.layers)
            for spec in self.kind(layer).parameters.values()
        )
        return stored + lost, stored

    def contradictions(self, manifest: Manifest, config: Mapping[str, Any]) -> Iterator[str]:
        if self.layers != len(manifest.widths):
            yield f"{FILE_NAME} has {self.layers} layers, {manifests.FILE_NAME} {len(manifest.widths)}"
            return
        for layer in range(self.layers):
            yield from self._contradictions_of(layer, manifest, config)

    def left(self, geometry: Geometry) -> tuple[Sequence[LayerWidths], int]:
        widths = [geometry.widths_of(self.counts(layer)) for layer in range(geometry.layers)]
        return widths, geometry.parameters(widths)

    def kept_shares(self, manifest: Manifest) -> dict[str, list[float]]:
        return unit_widths.kept_shares(manifest)

    def _contradictions_of(self, layer: int, manifest: Manifest, config: Mapping[str, Any]) -> Iterator[str]:
        units, left = self.kind(layer).units, self.counts(layer)
        for unit, full in units.items():
            for widths, count in ((manifest.base_widths[layer], full), (manifest.widths[layer], left[unit])):
                stated = unit_widths.stated(widths, unit)
                if stated != count:
                    yield f"layer {layer} has {count} {unit} by {FILE_NAME}, {stated} by {manifests.FILE_NAME}"
        of_config = unit_widths.of_config(config, layer, units, several_kinds=len(self.kinds) > 1)
        for name, count in of_config.items():
            unit = unit_widths.COUNTED[name]
            if count != left[unit]:
                yield f"layer {layer} has {left[unit]} {unit} by {FILE_NAME}, {name} {count} in config.json"

    def _place(self, name: str) -> tuple[int, str] | None:
        """Layer, and name within it; None outside the layers. PEFT's names end with those of the modules."""
        container = re.escape(self.prefix.rstrip(".").rpartition(".")[2])
        match = re.fullmatch(rf"(?:.+?\.)?{container}\.(\d+)\.(.+)", name)
        if match is None:
            return None
        if int(match[1]) >= self.layers:
            raise RequestFault(
                f"The adapter does not fit the checkpoint: {name} is of layer {match[1]}, the checkpoint has layers "
                f"0 … {self.layers - 1}."
            )
        return int(match[1]), match[2]

    def _entries(self, layer: int, spec: TensorSpec) -> Tensor:
        """TensorSpec.entries, as a tensor: int64 (kept,)."""
        units = self.kind(layer).units
        entries = []
        for part in spec.parts:
            kept = torch.tensor(list(self.kept.get((layer, part.unit), range(units[part.unit]))))
            entries.append((kept[:, None] * part.span + torch.arange(part.span)).flatten() + part.offset)
        return torch.cat(entries)

    def tensors(self) -> dict[str, Tensor]:
        """The file's tensors by name, int32."""
        return {
            f"{self.prefix}{layer}.{PLACES[unit]}": torch.tensor(list(kept), dtype=torch.int32)
            for (layer, unit), kept in sorted(self.kept.items())
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], structure: str) -> Self:
        """The opposite of `tensors`, with the structure as JSON; RequestFault for what is not of this format."""
        kinds, kind_of, prefix = from_json(structure)
        kept = {_key(name, tensor, prefix): tensor.tolist() for name, tensor in tensors.items()}
        return cls(kinds, kind_of, dict(sorted(kept.items())), prefix)


def save_masks(masks: Masks, path: Path) -> None:
    """Write the file; equal masks give equal bytes."""
    metadata = {"format": FORMAT, "structure": to_json(masks.kinds, masks.kind_of, masks.prefix)}
    path.write_bytes(_with_sorted_metadata(save(masks.tensors(), metadata)))


def load_masks(path: Path) -> Masks:
    """Read the file; raises RequestFault if it is missing, damaged or not of this format."""
    if not path.is_file():
        raise RequestFault(f"{path} does not exist.", way_out="A LoRAM checkpoint has its masks beside the weights.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise RequestFault(f"{path} is not a whole safetensors file: {error}.") from error
    if metadata.get("format") != FORMAT or "structure" not in metadata:
        raise RequestFault(
            f"{path} has no structure in its metadata; it is not a mask file of this format.",
            way_out="Masks that were published with a manifest of format 1 do not say the model's structure, which "
            "recovery needs: make the variant again.",
        )
    try:
        return Masks.from_tensors(tensors, metadata["structure"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestFault(f"{path} has a structure in its metadata that cannot be read: {error!r}.") from error


def _key(name: str, tensor: Tensor, prefix: str) -> tuple[int, Unit]:
    """Layer and unit of a tensor of the file."""
    match = re.fullmatch(rf"{re.escape(prefix)}(\d+)\.({'|'.join(map(re.escape, _UNITS))})", name)
    if match is None or tensor.dtype != torch.int32 or tensor.ndim != 1:
        raise RequestFault(
            f"mask {name} of {tensor.dtype} and shape {tuple(tensor.shape)} is not of the format: kept indices are "
            "int32 in one dimension."
        )
    return int(match[1]), _UNITS[match[2]]


def _with_sorted_metadata(content: bytes) -> bytes:
    """safetensors writes metadata in another order every time; sorting it does not change the header's length."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    return content[:8] + text + content[8 + length :]


def _refuse_indices(where: str, kept: Sequence[int], full: int) -> None:
    rising = all(left < right for left, right in pairwise(kept))
    if not kept or not rising or kept[0] < 0 or kept[-1] >= full:
        raise RequestFault(f"masks, {where}: indices have to rise, be at least one, and lie within 0 … {full - 1}.")
