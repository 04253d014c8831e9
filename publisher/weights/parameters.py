"""A model folder's parameters by the headers of its files alone: no weight is read, however large they are.

What bitsandbytes stores in 4 bits is one parameter in six tensors, and its shape stands in a note beside it, a few
bytes of JSON (`….quant_state.bitsandbytes__nf4`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

from publisher.errors import RequestFault
from publisher.weights.header import TensorEntry, WeightHeader, read_file_header
from publisher.weights.index import INDEX_FILE, read_index, weight_files

Shape = tuple[int, ...]

_NOTE = ".quant_state.bitsandbytes__"
_BESIDE = (".absmax", ".nested_absmax", ".nested_quant_map", ".quant_map")
#: bytes of a note, which has a few hundred
_NOTE_AT_MOST = 2**16


@dataclass(frozen=True)
class StoredParameters:
    """`shapes`: name → as a loaded model has it; `four_bit`: those that are stored in 4 bits; `misplaced`: tensors that
    are in another file than the index says, or in two, a clause each."""

    shapes: Mapping[str, Shape]
    four_bit: frozenset[str]
    misplaced: tuple[str, ...]

    @property
    def values(self) -> int:
        return sum(map(prod, self.shapes.values()))


def read_parameters(folder: Path, *, but: str | None = None) -> StoredParameters:
    """Of the files that a loader takes; `but` names one that the index lists and that holds no weights.

    Raises RequestFault naming a file that is missing or not whole, or a 4-bit weight whose note says another size.
    """
    headers = {path: _header(path) for path in weight_files(folder) if path.name != but}
    shapes: dict[str, Shape] = {}
    four_bit: dict[str, Shape] = {}
    for path, header in headers.items():
        packed = dict(_packed(path, header))
        beside = {name + end for name in packed for end in _BESIDE}
        whole = {
            name: entry.shape for name, entry in header.tensors.items() if name not in beside and _NOTE not in name
        }
        shapes |= whole | packed
        four_bit |= packed
    index = {name: file for name, file in (read_index(folder) or {}).items() if file != but}
    places = [(name, path.name) for path, header in headers.items() for name in header.tensors]
    return StoredParameters(shapes, frozenset(four_bit), tuple(_misplaced(places, index)))


def _header(path: Path) -> WeightHeader:
    try:
        return read_file_header(path)
    except FileNotFoundError as error:
        raise RequestFault(f"{path} is missing.", way_out="Save or download the model again.") from error


def _misplaced(places: list[tuple[str, str]], index: Mapping[str, str]) -> Iterator[str]:
    """`places`: (tensor, file). An index that is empty says nothing: there is one file."""
    for name, times in Counter(name for name, _ in places).items():
        if times > 1:
            yield f"{times} files hold {name}"
    if not index:
        return
    for name, file in places:
        if index.get(name) != file:
            yield f"{file} holds {name}, which {INDEX_FILE} has {'not' if name not in index else f'in {index[name]}'}"
    for name in sorted(index.keys() - dict(places).keys()):
        yield f"{index[name]} has no {name}, which {INDEX_FILE} says is there"


def _packed(path: Path, header: WeightHeader) -> Iterator[tuple[str, Shape]]:
    """4-bit weights of a file with the shapes of their notes."""
    for note, entry in header.tensors.items():
        name, found, _ = note.partition(_NOTE)
        if not found:
            continue
        shape, stored = _shape_in(path, header, note, entry), header.tensors.get(name)
        if stored is None or prod(stored.shape) != ceil(prod(shape) / 2):
            held = "no tensor" if stored is None else f"{prod(stored.shape):,} bytes"
            raise RequestFault(f"{path.name} has {held} for {name}, whose note says 4 bits of shape {shape}.")
        yield name, shape


def _shape_in(path: Path, header: WeightHeader, note: str, entry: TensorEntry) -> Shape:
    with path.open("rb") as file:
        file.seek(header.start + entry.begin)
        text = file.read(min(entry.end - entry.begin, _NOTE_AT_MOST))
    try:
        return tuple(int(size) for size in json.loads(text)["shape"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RequestFault(f"{path.name}: {note} does not say the shape of a weight ({error!r}).") from error
