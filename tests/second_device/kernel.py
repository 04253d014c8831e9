"""Operations with tensors of the device: refused if the CPU's are among them, or else computed by the CPU."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from tests.second_device.device import CPU, DEVICE, GENERATORS, NAME

#: DLPack's word for a device that it does not know
_EXTENSION = 12
_INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
_COPIES = ("copy_", "_copy_from", "_copy_from_and_resize", "_to_copy")


def is_elsewhere(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == NAME


class _Operation:
    """What the schema of an operation says, looked up once."""

    def __init__(self, op: Any) -> None:
        self.run, self.schema = op, op._schema
        self.name = self.schema.name.removeprefix("aten::")
        self.arguments = [entry.name for entry in self.schema.arguments]
        self.takes_tensor = [isinstance(entry.type, torch._C.TensorType) for entry in self.schema.arguments]
        self.outs = [entry.name for entry in self.schema.arguments if entry.is_out]
        self.written = {entry.name for entry in self.schema.arguments if entry.is_write}
        self.draws = torch.Tag.nondeterministic_seeded in op.tags
        packet = op.overloadpacket
        pointwise = any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())
        self.takes_numbers = pointwise or self.name in ("masked_fill", "masked_fill_", "fill_")
        aliased = {alias: entry.name for entry in self.schema.arguments for alias in _aliases(entry)}
        #: of each result: the argument that it is or looks at, and whether it was written to
        self.results = [
            (next((aliased[alias] for alias in _aliases(entry) if alias in aliased), None), _is_write(entry))
            for entry in self.schema.returns
        ]


_operation = cache(_Operation)


def _aliases(entry: Any) -> set[str]:
    return set() if entry.alias_info is None else set(entry.alias_info.before_set)


def _is_write(entry: Any) -> bool:
    return entry.alias_info is not None and bool(entry.alias_info.is_write)


def kernel(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Any operation with a tensor of the device among its arguments, or that makes one there."""
    operation = _operation(op)
    given = dict(zip(operation.arguments, args, strict=False)) | kwargs
    _refuse_mixed(operation, given)
    if operation.name in _BY_HAND:
        return _BY_HAND[operation.name](*args)
    growing = {name: torch.empty(0, dtype=given[name].dtype) for name in operation.outs if not given[name].numel()}
    args = tuple(
        _tensor_if(tensor, each(_on_cpu, value)) for tensor, value in zip(operation.takes_tensor, args, strict=False)
    )
    kwargs = {name: each(_on_cpu, value) for name, value in kwargs.items()}
    if operation.draws:
        with _chance_of(given.get("generator")):
            found = op(*args, **kwargs | growing)
    else:
        found = op(*args, **kwargs | growing)
    for name, grown in growing.items():
        given[name].data = _from_cpu(grown)
    return _returned(operation, given, found)


def each(function: Callable[[Any], Any], value: Any) -> Any:
    """Of lists and tuples each part, and any other value."""
    return type(value)(each(function, part) for part in value) if type(value) in (list, tuple) else function(value)


def _tensor_if(takes_tensor: bool, value: Any) -> Any:
    """A number that stood where a tensor may comes here as a number."""
    return torch.tensor(value) if takes_tensor and isinstance(value, bool | int | float) else value


def _copied(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _on_cpu(target).copy_(_on_cpu(source))
    return target


def _resized(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    if torch.Size(shape).numel() != tensor.numel():
        assert not tensor.numel(), "a tensor with values is made larger or smaller"
        tensor.data = _from_cpu(torch.empty(shape, dtype=tensor.dtype))
    return tensor


def _laid_over(tensor: Tensor, source: Any, *where: Any) -> Tensor:
    """`Tensor.set_` with a storage, which copies of storages use; whoever holds the storage holds its memory."""
    memory = torch._C._construct_storage_from_data_pointer(source.data_ptr(), CPU, source.nbytes())
    tensor.data = _from_cpu(torch.empty(0, dtype=tensor.dtype).set_(memory, *where))
    return tensor


#: what the CPU has no kernel for, and what changes more than values
_BY_HAND: dict[str, Callable[..., Any]] = {
    "_copy_from": _copied,
    "resize_": _resized,
    "set_": _laid_over,
    "record_stream": lambda tensor, stream: None,
}


def _refuse_mixed(operation: _Operation, given: dict[str, Any]) -> None:
    if operation.name in _COPIES:
        return
    for argument, value in given.items():
        if argument == "indices" and operation.name in _INDEXED and is_elsewhere(given["self"]):
            continue
        for tensor in value if type(value) in (list, tuple) else (value,):
            if not isinstance(tensor, Tensor) or is_elsewhere(tensor):
                continue
            if tensor.dim() or argument in operation.written or not operation.takes_numbers:
                words = f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and "
                words += f"{tensor.device}! ({operation.schema.name}: {argument})"
                if torch._C._current_autograd_node() is not None:
                    print(words, file=sys.stderr, flush=True)  # the process may end here, see above
                raise RuntimeError(words)


@contextmanager
def _chance_of(generator: torch.Generator | None) -> Iterator[None]:
    """Numbers that are drawn without a generator come from the device's own."""
    if generator is not None and generator._cdata not in GENERATORS:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
    if generator is not None:
        yield
        return
    before = torch.get_rng_state()
    torch.set_rng_state(DEVICE.chance.get_state())
    try:
        yield
    finally:
        DEVICE.chance.set_state(torch.get_rng_state())
        torch.set_rng_state(before)


def _returned(operation: _Operation, given: dict[str, Any], found: Any) -> Any:
    """Results under the device's name: what was written to is itself, views are of what they look at."""
    to_cpu = given.get("device") is not None and torch.device(given["device"]).type == "cpu"

    def settle(source: str | None, is_written: bool, value: Any) -> Any:
        if source is None:
            return value if to_cpu else each(_from_cpu, value)
        if is_written:
            return given[source]
        return each(partial(_view, given[source]), value)

    if len(operation.results) == 1:
        return settle(*operation.results[0], found)
    return tuple(settle(*result, value) for result, value in zip(operation.results, found or (), strict=True)) or None


def _view(source: Tensor, looks: Tensor) -> Tensor:
    if not is_elsewhere(source):
        return looks
    if source.dtype != looks.dtype:
        raise NotImplementedError(f"{source.dtype} seen as {looks.dtype}")
    alias = torch.ops.aten.alias(source)
    return torch.ops.aten.as_strided_(alias, looks.shape, looks.stride(), looks.storage_offset())


def _on_cpu(value: Any) -> Any:
    """A tensor of the device as the CPU's, of the same memory; a device as the CPU."""
    if isinstance(value, torch.device):
        return CPU if value.type == NAME else value
    if not is_elsewhere(value):
        return value
    memory = value.untyped_storage()
    same = torch._C._construct_storage_from_data_pointer(memory.data_ptr(), CPU, memory.nbytes())
    return torch.empty(0, dtype=value.dtype).set_(same, value.storage_offset(), value.shape, value.stride())


def _from_cpu(value: Any) -> Any:
    """The other way: through DLPack, which holds the memory for as long as the tensor is there."""
    if not isinstance(value, Tensor):
        return value
    DEVICE.taken += value.nbytes
    capsule = torch._C._to_dlpack(value.detach())
    where = (ctypes.c_int32 * 2).from_address(_pointer(capsule, b"dltensor") + ctypes.sizeof(ctypes.c_void_p))
    where[:] = _EXTENSION, 0
    return torch._C._from_dlpack(capsule)


_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
