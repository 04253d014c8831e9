"""An adapter's tensors as they were saved, under the names that PEFT loads them by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from publisher.architecture.structure import Shape
from publisher.checkpoint.recovery.naming import Naming
from publisher.checkpoint.recovery.places import AdapterPlaces
from publisher.errors import RequestFault
from publisher.weights.folder import opened

#: safetensors' names of what training can have made
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
#: what bitsandbytes saves beside a weight in 4 bits: PEFT saves them with embeddings and heads that LoRA adapts
_PACKED = re.compile(r"(.+\.weight)\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..+)")


@dataclass(frozen=True)
class AdapterTensors:
    """An opened adapter_model.safetensors. `names`: PEFT's name → the one in the file; `naming`: its method's.

    `packed`: weights in 4 bits that stand beside the adapter, which cannot have been trained and are none of it.
    """

    file: Any
    naming: Naming
    names: Mapping[str, str]
    packed: tuple[str, ...] = ()

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self.file.get_tensor(self.names[name])
        return tensor

    def shape(self, name: str) -> Shape:
        return tuple(self.file.get_slice(self.names[name]).get_shape())

    def dtype(self, name: str) -> str:
        """In safetensors' words: "F32", "BF16"."""
        dtype: str = self.file.get_slice(self.names[name]).get_dtype()
        return dtype

    @property
    def shapes(self) -> dict[str, Shape]:
        return {name: self.shape(name) for name in sorted(self.names)}

    @property
    def renamed(self) -> dict[str, str]:
        """Of `names` those that differ."""
        return {name: saved for name, saved in self.names.items() if name != saved}

    @property
    def updates(self) -> list[str]:
        """The parts of the update, sorted; the others are whole parameters."""
        return [name for name in sorted(self.names) if not self.naming.is_whole(name)]

    @property
    def wholes(self) -> list[str]:
        return [name for name in sorted(self.names) if self.naming.is_whole(name)]

    def adapted(self) -> set[str]:
        """The modules that have an update, with PEFT's prefix."""
        return {self.naming.adapted(name) for name in self.updates}

    def finite(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors by name, each read once; RequestFault naming the first that holds NaN or infinity."""
        for name in sorted(self.names):
            tensor = _comparable(self.read(name))
            refuse_not_finite(self.names[name], tensor)
            yield name, tensor

    def placed(self, places: AdapterPlaces) -> AdapterTensors:
        """The same under PEFT's names; RequestFault for what has none there."""
        return replace(self, names=places.names(self.names))


@contextmanager
def opened_adapter(path: Path, naming: Naming, title: str) -> Iterator[AdapterTensors]:
    """The adapter in file `path`, its names as they are. `naming` and `title` are its method's.

    Raises RequestFault for what is no whole file, or has no part of an update or other numbers than floats.
    """
    try:
        with opened(path) as file:
            yield _adapter(path, file, naming, title)
    except SafetensorError as error:
        raise RequestFault(f"{path} is not a whole safetensors file: {error}.") from error


def _adapter(path: Path, file: Any, naming: Naming, title: str) -> AdapterTensors:
    saved = list(file.keys())
    if all(map(naming.is_whole, saved)):
        raise RequestFault(f"{path} has no {title} tensor.", way_out="Save the adapter with model.save_pretrained.")
    packed = {match[1] for match in map(_PACKED.fullmatch, saved) if match and match[1] in saved}
    kept = [name for name in saved if name not in packed and not _is_of(name, packed)]
    for name in kept:
        if not any(mark in name for mark in naming.indices):
            _refuse_no_floats(name, file.get_slice(name).get_dtype())
    return AdapterTensors(file, naming, {name: name for name in kept}, tuple(sorted(packed)))


def _is_of(name: str, packed: Iterable[str]) -> bool:
    match = _PACKED.fullmatch(name)
    return match is not None and match[1] in packed


def _refuse_no_floats(name: str, dtype: str) -> None:
    if dtype not in FLOATS:
        raise RequestFault(
            f"{name} of the adapter holds {dtype}, which is nothing that was trained.",
            way_out="Save the adapter in bf16, fp16 or fp32.",
        )


def _comparable(tensor: Tensor) -> Tensor:
    """torch knows little of floats of 8 bits."""
    return tensor.float() if tensor.itemsize == 1 else tensor


def refuse_not_finite(name: str, tensor: Tensor) -> None:
    """RequestFault naming the adapter's tensor."""
    if not torch.isfinite(tensor).all():
        kind = "NaN" if tensor.isnan().any() else "infinity"
        raise RequestFault(
            f"{name} of the adapter holds {kind}: training diverged, and every answer would be {kind} or noise.",
            way_out="Take an earlier save of the training, or train again (in bf16, with a lower learning rate).",
        )
