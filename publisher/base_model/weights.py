"""A base model's weight files, by their headers: which there are, and whether they hold the model of config.json."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from publisher.architecture.geometry import Geometry
from publisher.base_model.files import ModelFiles, json_object
from publisher.errors import UnsupportedModel
from publisher.weights.header import ITEM_BYTES, TensorEntry, WeightHeader, read_header
from publisher.weights.index import INDEX_FILE, SINGLE_FILE, weight_map

#: safetensors' names of the types that weights may have
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

_PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
#: elements of two tensors that are compared at once
_COMPARED_AT_ONCE = 2**20
#: of tensors that lie on a Hub so many pieces are compared, spread over them: whoever trains a head changes all of it
_SAMPLES, _SAMPLE = 8, 2**13


def read_headers(files: ModelFiles, sizes: Mapping[str, int]) -> dict[str, WeightHeader]:
    """File name → header of every file that transformers would read. Raises UnsupportedModel."""
    placed = _weight_map(files, sizes)
    headers = {
        name: read_header(name, sizes[name], lambda start, end, name=name: files.read(name, start, end))  # type: ignore[misc]
        for name in sorted(set(placed.values()) or {SINGLE_FILE})
    }
    for tensor, shard in placed.items():
        if tensor not in headers[shard].tensors:
            raise UnsupportedModel(
                f"{INDEX_FILE} in {files.where} places tensor {tensor} in {shard}, which does not hold it.",
                way_out="Fetch or save the index and its shards again.",
            )
    _refuse_twice(headers)
    return headers


def _weight_map(files: ModelFiles, sizes: Mapping[str, int]) -> dict[str, str]:
    """Tensor → shard, by the index; empty if one file holds everything (transformers looks for that one first)."""
    if SINGLE_FILE in sizes:
        return {}
    if INDEX_FILE not in sizes:
        raise _no_safetensors(files.where, sizes)
    placed = weight_map(json_object(files, sizes, INDEX_FILE), f"{INDEX_FILE} in {files.where}", UnsupportedModel)
    shards = set(placed.values())
    other = sorted(name for name in shards if not name.endswith(".safetensors"))
    if other:
        raise UnsupportedModel(
            f"{INDEX_FILE} in {files.where} names {other[0]!r}, which transformers would not read as safetensors.",
            way_out="Name shards *.safetensors, in the index as well.",
        )
    missing = sorted(shards - set(sizes))
    if missing:
        raise UnsupportedModel(
            f"{files.where} lacks {', '.join(missing[:3])}, which {INDEX_FILE} names"
            f" ({len(missing)} of {len(shards)} shards are missing).",
            way_out="Copy every shard.",
        )
    return placed


def _no_safetensors(where: str, sizes: Mapping[str, int]) -> UnsupportedModel:
    pickles = [name for name in sizes if name.endswith(_PICKLE_ENDINGS)]
    if pickles:
        return UnsupportedModel(
            f"{where} holds its weights as pickles only ({', '.join(pickles[:3])}), which can run code when read.",
            way_out="Convert to safetensors: load the model where you trust it and save_pretrained() it again.",
        )
    other = [name for name in sizes if name.endswith((".gguf", ".safetensors"))]
    found = f" (there is {', '.join(other[:3])})" if other else ""
    return UnsupportedModel(
        f"{where} has neither {SINGLE_FILE} nor {INDEX_FILE}{found}.",
        way_out="Weights must be safetensors as transformers' save_pretrained() names them.",
    )


def _refuse_twice(headers: Mapping[str, WeightHeader]) -> None:
    """Which of two it would be depends on the order in which files are read."""
    seen: dict[str, str] = {}
    for file, header in headers.items():
        for tensor in header.tensors:
            if tensor in seen:
                raise UnsupportedModel(
                    f"tensor {tensor} is in {seen[tensor]} and in {file}.", way_out="Save the model again."
                )
            seen[tensor] = file


def check_tensors(geometry: Geometry, tensors: Mapping[str, TensorEntry]) -> list[str]:
    """Names of the tensors that are no part of the model, because transformers passes them over, too.

    Raises UnsupportedModel if one is missing, has another shape or type, or is unknown.
    """
    expected = geometry.tensor_shapes()
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise UnsupportedModel(f"{_some(missing)} missing from the weights, though config.json asks for it.")
    expected |= {name: expected[other] for name, other in geometry.tied.items()}
    ignored = re.compile("|".join(f"(?:{pattern})" for pattern in geometry.ignored) or "(?!)")
    left_out = [name for name in tensors if name not in expected and ignored.search(name)]
    for name in sorted(tensors.keys() - set(left_out)):
        _check_tensor(geometry, name, tensors[name], expected.get(name))
    return left_out


def _check_tensor(geometry: Geometry, name: str, entry: TensorEntry, shape: Sequence[int] | None) -> None:
    if shape is None:
        raise UnsupportedModel(f"tensor {name} is not part of a {geometry.family} model of this config.json.")
    if entry.shape != shape:
        raise UnsupportedModel(
            f"tensor {name} has shape {entry.shape}; config.json asks for {shape}.",
            way_out="config.json must be the one that was saved with these weights.",
        )
    if entry.dtype not in DTYPES:
        raise UnsupportedModel(
            f"tensor {name} is stored as {entry.dtype}.",
            way_out=f"Register the original model in one of {', '.join(DTYPES)}.",
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more tensors are" if len(names) > 3 else " is" if len(names) == 1 else " are"
    return f"tensor {', '.join(names[:3])}{more}"


def differing_copies(
    files: ModelFiles, headers: Mapping[str, WeightHeader], tied: Mapping[str, str], *, in_full: bool
) -> list[str]:
    """Of the tensors that config.json ties to others, those that the files hold with other values.

    transformers unties these. `in_full`: look at every value; else at some, spread over the tensors, which is what one
    wants to read from a Hub.
    """
    stored = {name: _Stored(files, file, header, name) for file, header in headers.items() for name in header.tensors}
    pairs = {name: (stored[name], stored[other]) for name, other in tied.items() if name in stored and other in stored}
    return [name for name, (one, other) in pairs.items() if not _equal(one, other, in_full=in_full)]


@dataclass(frozen=True)
class _Stored:
    """A tensor in a file."""

    files: ModelFiles
    file: str
    header: WeightHeader
    name: str

    @property
    def entry(self) -> TensorEntry:
        return self.header.tensors[self.name]

    def values(self, first: int, end: int) -> NDArray[np.float32]:
        """Values `first` to `end` of the flattened tensor as float32, which holds all of DTYPES exactly."""
        start, item = self.header.start + self.entry.begin, ITEM_BYTES[self.entry.dtype]
        content = self.files.read(self.file, start + first * item, start + end * item)
        if self.entry.dtype == "BF16":
            return (np.frombuffer(content, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
        return np.frombuffer(content, dtype="<f4" if self.entry.dtype == "F32" else "<f2").astype(np.float32)


def _equal(one: _Stored, other: _Stored, *, in_full: bool) -> bool:
    if one.entry.shape != other.entry.shape or not {one.entry.dtype, other.entry.dtype} <= DTYPES.keys():
        return True  # refused anyway, by its name and not as another head
    count = prod(one.entry.shape)
    pieces = _pieces(count, in_full=in_full)
    return all(np.array_equal(one.values(first, end), other.values(first, end)) for first, end in pieces)


def _pieces(count: int, *, in_full: bool) -> Iterator[tuple[int, int]]:
    if in_full or count <= _SAMPLES * _SAMPLE:
        yield from ((first, min(first + _COMPARED_AT_ONCE, count)) for first in range(0, count, _COMPARED_AT_ONCE))
        return
    for index in range(_SAMPLES):
        first = index * (count - _SAMPLE) // (_SAMPLES - 1)
        yield first, first + _SAMPLE
