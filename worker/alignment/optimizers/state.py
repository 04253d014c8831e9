"""An optimizer's state as tensors by name and a JSON text: whatever it is made of, and never pickled.

8-bit states hold numbers and shared tables beside their tensors, GaLore's hold objects with tensors in them. All of it
comes back with the same values, memory layouts and sharing, so that the next step computes the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from publisher.recipe.optimizers.register import optimizers
from worker.alignment.distributed.tensors import part_of_one_like

_PREFIX = "optimizer."
_TENSOR, _OBJECT = "__tensor__", "__object__"

#: Objects that may be in a state, by their class's name, and the module that has it: nothing else is ever made.
_CLASSES = {name: module for spec in optimizers() for name, module in spec.state_objects.items()}


def pack_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], str]:
    """Tensors by name (`optimizer.…`), each once, and how they belong together.

    They share memory with the optimizer's, and are in parts where those are.
    """
    packer = _Packer()
    layout = {
        str(index): packer.pack(f"{_PREFIX}{index}", optimizer.state[parameter], parameter)
        for index, parameter in enumerate(_parameters(optimizer))
        if parameter in optimizer.state
    }
    return packer.tensors, json.dumps(layout)


def unpack_state(optimizer: Optimizer, tensors: Mapping[str, Tensor], layout: str) -> None:
    """The opposite of `pack_state`, into an optimizer made in the same way for the same parameters."""
    unpacker = _Unpacker(tensors)
    parts = json.loads(layout)
    for index, parameter in enumerate(_parameters(optimizer)):
        optimizer.state.pop(parameter, None)
        if str(index) in parts:
            optimizer.state[parameter] = unpacker.unpack(parts[str(index)], parameter)


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes of all tensors in the state; what parameters share counts once."""
    tensors, _ = pack_state(optimizer)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


class _Packer:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[int, str] = {}

    def pack(self, name: str, value: Any, parameter: Tensor) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(name, value, parameter)
        if isinstance(value, Mapping):
            return {key: self.pack(f"{name}.{key}", part, parameter) for key, part in value.items()}
        if type(value).__name__ in _CLASSES:
            return {_OBJECT: type(value).__name__, "fields": self.pack(name, vars(value), parameter)}
        assert value is None or isinstance(value, bool | int | float | str), f"{name} is a {type(value).__name__}"
        return value

    def _tensor(self, name: str, tensor: Tensor, parameter: Tensor) -> dict[str, Any]:
        name = self._names.setdefault(id(tensor), name)
        self.tensors[name] = tensor
        layout: dict[str, Any] = {_TENSOR: name, "with_parameter": tensor.device == parameter.device}
        if isinstance(tensor, DTensor):
            assert tensor.shape == parameter.shape, f"{name} is in parts, and of another shape than its parameter"
            return layout | {"in_parts": True}
        # products of a transposed matrix can differ in the last bit from those of its copy
        return layout if tensor.is_contiguous() else layout | {"stride": tensor.stride()}


class _Unpacker:
    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._stored = tensors
        self._placed: dict[str, Tensor] = {}

    def unpack(self, value: Any, parameter: Tensor) -> Any:
        if not isinstance(value, dict):
            return value
        if _TENSOR in value:
            placed = self._tensor(value, parameter.device)
            return part_of_one_like(placed, parameter) if value.get("in_parts") else placed
        if _OBJECT in value:
            made_of = getattr(import_module(_CLASSES[value[_OBJECT]]), value[_OBJECT])
            made = made_of.__new__(made_of)
            vars(made).update(self.unpack(value["fields"], parameter))
            return made
        return {key: self.unpack(part, parameter) for key, part in value.items()}

    def _tensor(self, layout: Mapping[str, Any], device: torch.device) -> Tensor:
        name = layout[_TENSOR]
        if name not in self._placed:
            stored = self._stored[name].to(device if layout["with_parameter"] else "cpu")
            stride = layout.get("stride")
            self._placed[name] = (
                stored if stride is None else torch.empty_strided(stored.shape, stride, **_like(stored)).copy_(stored)
            )
        return self._placed[name]


def _like(tensor: Tensor) -> dict[str, Any]:
    return {"dtype": tensor.dtype, "device": tensor.device}
