"""Which heads and neurons of the base model a checkpoint kept: `pruning_masks.safetensors`.

One int32 tensor of sorted indices for each layer and axis that lost something:
`model.layers.{i}.self_attn.kept_kv_heads` and `model.layers.{i}.mlp.kept_neurons`. The file's metadata holds the
base model's sizes, so that the file alone says where every row and column of the checkpoint came from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from publisher.errors import RequestFault

FILE_NAME = "pruning_masks.safetensors"
_FORMAT = "loram"
_NAME = re.compile(r"model\.layers\.(\d+)\.(self_attn\.kept_kv_heads|mlp\.kept_neurons)")
_SIZES = ("head_dim", "group_size", "kv_heads", "neurons")


@dataclass(frozen=True)
class KeptIndices:
    """`indices` (sorted, int64, shape (kept,)) of an axis that is `full` long in the base model."""

    indices: Tensor
    full: int

    def __len__(self) -> int:
        return len(self.indices)

    def in_blocks_of(self, size: int) -> KeptIndices:
        """The same choice on an axis where each entry is `size` channels wide."""
        channels = self.indices[:, None] * size + torch.arange(size)
        return KeptIndices(channels.flatten(), self.full * size)


@dataclass(frozen=True)
class Masks:
    """Kept KV heads and neurons by layer; a layer that is not named is whole.

    `kv_heads` and `neurons` are the base model's sizes of every layer; each KV head serves `group_size` query
    heads of `head_dim` channels, which are kept or removed with it.
    """

    head_dim: int
    group_size: int
    kv_heads: int
    neurons: int
    kept_kv_heads: Mapping[int, Sequence[int]] = field(default_factory=dict)
    kept_neurons: Mapping[int, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises RequestFault naming the layer whose indices are not sorted, unique and within the axis."""
        for size in _SIZES:
            if getattr(self, size) < 1:
                raise RequestFault(f"masks have {size} {getattr(self, size)}; it is at least 1.")
        for layer, kept in self.kept_kv_heads.items():
            _refuse_indices(f"layer {layer}, kept_kv_heads", kept, self.kv_heads)
        for layer, kept in self.kept_neurons.items():
            _refuse_indices(f"layer {layer}, kept_neurons", kept, self.neurons)

    def rows(self, layer: int, projection: str) -> KeptIndices | None:
        """Output channels of `q_proj`, `k_proj`, `v_proj`, `gate_proj` or `up_proj` that are kept; None: all."""
        match projection:
            case "q_proj":
                return self._query_channels(layer)
            case "k_proj" | "v_proj":
                return self._head_channels(layer)
            case "gate_proj" | "up_proj":
                return self._neuron_channels(layer)
        return None

    def columns(self, layer: int, projection: str) -> KeptIndices | None:
        """Input channels of `o_proj` or `down_proj` that are kept; None: all of them."""
        match projection:
            case "o_proj":
                return self._query_channels(layer)
            case "down_proj":
                return self._neuron_channels(layer)
        return None

    def _head_channels(self, layer: int, heads_per_kv_head: int = 1) -> KeptIndices | None:
        kept = self.kept_kv_heads.get(layer)
        if kept is None:
            return None
        return _kept(kept, self.kv_heads).in_blocks_of(heads_per_kv_head * self.head_dim)

    def _query_channels(self, layer: int) -> KeptIndices | None:
        return self._head_channels(layer, self.group_size)

    def _neuron_channels(self, layer: int) -> KeptIndices | None:
        kept = self.kept_neurons.get(layer)
        return None if kept is None else _kept(kept, self.neurons)

    def tensors(self) -> dict[str, Tensor]:
        """The file's tensors by name, int32."""
        named = {f"model.layers.{i}.self_attn.kept_kv_heads": kept for i, kept in self.kept_kv_heads.items()}
        named |= {f"model.layers.{i}.mlp.kept_neurons": kept for i, kept in self.kept_neurons.items()}
        return {name: torch.tensor(list(kept), dtype=torch.int32) for name, kept in named.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], sizes: Mapping[str, int]) -> Self:
        """The opposite of `tensors`; raises RequestFault for a name or dtype that is not of this format."""
        kept: dict[str, dict[int, list[int]]] = {"self_attn.kept_kv_heads": {}, "mlp.kept_neurons": {}}
        for name, tensor in tensors.items():
            match = _NAME.fullmatch(name)
            if match is None or tensor.dtype != torch.int32 or tensor.ndim != 1:
                raise RequestFault(
                    f"mask {name} of {tensor.dtype} and shape {tuple(tensor.shape)} is not of the format: kept "
                    "indices are int32 in one dimension."
                )
            kept[match[2]][int(match[1])] = tensor.tolist()
        return cls(
            **sizes,
            kept_kv_heads=dict(sorted(kept["self_attn.kept_kv_heads"].items())),
            kept_neurons=dict(sorted(kept["mlp.kept_neurons"].items())),
        )


def save_masks(masks: Masks, path: Path) -> None:
    """Write the file; equal masks give equal bytes."""
    metadata = {"format": _FORMAT} | {size: str(getattr(masks, size)) for size in _SIZES}
    path.write_bytes(_with_sorted_metadata(save(masks.tensors(), metadata)))


def _with_sorted_metadata(content: bytes) -> bytes:
    """safetensors writes metadata in another order every time; sorting it does not change the header's length."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    return content[:8] + text + content[8 + length :]


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
    return Masks.from_tensors(tensors, dict(_sizes(path, metadata)))


def _sizes(path: Path, metadata: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    for size in _SIZES:
        text = metadata.get(size, "")
        if metadata.get("format") != _FORMAT or not text.isdecimal():
            raise RequestFault(f"{path} has no {size} in its metadata; it is not a mask file of this format.")
        yield size, int(text)


def _kept(indices: Sequence[int], full: int) -> KeptIndices:
    return KeptIndices(torch.tensor(list(indices), dtype=torch.int64), full)


def _refuse_indices(where: str, kept: Sequence[int], full: int) -> None:
    rising = all(left < right for left, right in pairwise(kept))
    if not kept or not rising or kept[0] < 0 or kept[-1] >= full:
        raise RequestFault(f"masks, {where}: indices have to rise, be at least one, and lie within 0 … {full - 1}.")
