"""`pruning_masks.safetensors` for those who only look: which heads, neurons and experts stayed, read without torch.

publisher.checkpoint.masks says what the file holds, and writes it.
"""

from __future__ import annotations

import json
import re
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from publisher.architecture.structure import LayerKind, Unit
from publisher.architecture.structure_json import from_json
from publisher.errors import RequestFault
from publisher.weights.header import ReadRange, TensorEntry, WeightHeader, read_header

FILE_NAME = "pruning_masks.safetensors"
FORMAT = "loram"
#: within a layer, the tensor that names a unit's kept indices
PLACES: Mapping[Unit, str] = {
    Unit.KV_HEADS: "self_attn.kept_kv_heads",
    Unit.NEURONS: "mlp.kept_neurons",
    Unit.EXPERTS: "mlp.kept_experts",
}
_UNITS = {place: unit for unit, place in PLACES.items()}


@dataclass(frozen=True)
class KeptUnits:
    """Kept indices by layer and unit; what is not named is whole. Layer `i` is `kinds[kind_of[i]]`."""

    kinds: tuple[LayerKind, ...]
    kind_of: tuple[int, ...]
    kept: Mapping[tuple[int, Unit], Sequence[int]]

    def full(self, layer: int, unit: Unit) -> int:
        """How many of `unit` the base model's layer has."""
        return self.kinds[self.kind_of[layer]].units.get(unit, 0)

    def indices(self, layer: int, unit: Unit) -> Sequence[int]:
        return self.kept.get((layer, unit), range(self.full(layer, unit)))


def read_kept_units(size: int, read: ReadRange) -> KeptUnits | None:
    """Of a file of `size` bytes; None if it masks single weights.

    Raises UnsupportedModel for what is no whole safetensors file, RequestFault for one that is not of this format.
    """
    header = read_header(FILE_NAME, size, read)
    try:
        stated = json.loads(header.raw).get("__metadata__") or {}
        if stated.get("format") != FORMAT or "structure" not in stated:
            return None
        kinds, kind_of, prefix = from_json(stated["structure"])
        kept = {_key(name, prefix): _indices(entry, header, read) for name, entry in header.tensors.items()}
        units = KeptUnits(kinds, kind_of, kept)
        _refuse_strangers(units)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise RequestFault(f"{FILE_NAME} is not of this format: {error!r}.") from error
    return units


def _key(name: str, prefix: str) -> tuple[int, Unit]:
    match = re.fullmatch(rf"{re.escape(prefix)}(\d+)\.({'|'.join(map(re.escape, _UNITS))})", name)
    if match is None:
        raise ValueError(f"{name} holds no kept indices")
    return int(match[1]), _UNITS[match[2]]


def _indices(entry: TensorEntry, header: WeightHeader, read: ReadRange) -> Sequence[int]:
    if entry.dtype != "I32" or len(entry.shape) != 1:
        raise ValueError(f"indices of {entry.dtype} and shape {entry.shape}")
    found = array("i")
    found.frombytes(read(header.start + entry.begin, header.start + entry.end))
    if sys.byteorder == "big":
        found.byteswap()
    return found


def _refuse_strangers(units: KeptUnits) -> None:
    for (layer, unit), kept in units.kept.items():
        if not kept or min(kept) < 0 or max(kept) >= units.full(layer, unit):
            raise ValueError(f"layer {layer} has no such {unit}")
