"""A second device on a machine without one: tensors of `elsewhere` lie apart from the CPU's, and refuse to meet them.

Most faults of code that runs on a GPU for the first time are of one kind: a tensor that was made on the CPU meets one
of the GPU. Where the CPU is the only device nothing can show it. Here PyTorch gets another one, of the kind that it
keeps for makers of hardware (PrivateUse1), with all that code asks a device for: autograd, autocast, `torch.nn`,
generators, streams, counters of memory. Values are the CPU's, computed by the CPU: a tensor of `elsewhere` is memory
of the CPU under another device's name, and every operation without a kernel of its own comes to `_kernel`, which takes
the name away, computes, and gives it back.

    with second_device():
        torch.ones(2, device="elsewhere") + torch.ones(2)     # RuntimeError: Expected all tensors to be on the same …

Refused as CUDA refuses: tensors of two devices in one operation, but for single numbers (no axes) of the CPU beside
tensors of the device, where each value is computed from its own, and for indices; generators of the other device;
`numpy()`. Allowed are copies. What it cannot show: kernels' own limits and rounding, that something is slow, that two
streams ran into each other. `Module.to` makes new parameters, where with CUDA they stay themselves.

An error in the middle of `backward` ends the process (PyTorch 2.13, for devices that are made in Python): pytest's
stack then shows which `backward` of which test it was, and stderr what met.

Once in a process PyTorch knows the device, for as long as the process lives; outside of `second_device` it says that
none is there.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch
from weakref import finalize

import bitsandbytes  # noqa: F401 - registers its operations
import safetensors.torch
import torch
import torch._dynamo
from torch import Tensor
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "elsewhere"
CPU = torch.device("cpu")
MEMORY = 2**40

#: DLPack's word for a device that it does not know
_EXTENSION = 12
_INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
_COPIES = ("copy_", "_copy_from", "_copy_from_and_resize", "_to_copy")
#: what CUDA's autocast computes in the lower precision, as far as anything here uses it, and what it keeps in fp32
_LOWER = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "addbmm", "scaled_dot_product_attention")
_FP32 = ("log_softmax.int", "softmax.int", "nll_loss", "cross_entropy_loss", "kl_div", "mse_loss", "pow.Tensor_Scalar")
_FP32 += ("sum", "sum.dim_IntList", "prod", "cumsum", "rsqrt", "log", "exp", "norm.Scalar", "cosine_similarity")


@contextmanager
def second_device() -> Iterator[torch.device]:
    """Within, PyTorch has the device, which it gives."""
    _register()
    _device.present = True
    _device.chance.manual_seed(0)
    generators = patch.object(torch, "Generator", _Generator)
    pinning = patch.object(Tensor, "pin_memory", lambda tensor, *_: tensor.clone())
    loading = patch.object(safetensors.torch, "safe_open", _Opened)
    eager = torch._dynamo.config.patch(disable=True)
    one_thread = torch.autograd.set_multithreading_enabled(False)  # stacks then begin in the test
    try:
        with generators, pinning, loading, eager, one_thread:
            yield torch.device(NAME, 0)
    finally:
        _device.present = False


class _Device(ModuleType):
    """What `torch.cuda` is to CUDA."""

    def __init__(self) -> None:
        super().__init__(f"torch.{NAME}")
        self.present = False
        self.chance = torch.Generator()
        self.taken = 0
        self.calls: list[str] = []

    def is_available(self) -> bool:
        return self.present

    is_initialized = is_available

    def device_count(self) -> int:
        return int(self.present)

    def current_device(self) -> int:
        return 0

    def set_device(self, device: object) -> None:
        self.calls.append("set_device")

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_device_properties(self, device: object) -> SimpleNamespace:
        return SimpleNamespace(name="a second device", total_memory=MEMORY)

    # --- chance
    def manual_seed_all(self, seed: int) -> None:
        self.chance.manual_seed(seed)

    manual_seed = manual_seed_all

    def get_rng_state(self, device: object = NAME) -> Tensor:
        return self.chance.get_state()

    def set_rng_state(self, state: Tensor, device: object = NAME) -> None:
        if state.device != CPU:
            raise TypeError("RNG state must be a torch.ByteTensor of the CPU")
        self.chance.set_state(state)

    # --- memory: of all tensors that were ever there
    def max_memory_allocated(self, device: object = NAME) -> int:
        return self.taken

    def reset_peak_memory_stats(self, device: object = NAME) -> None:
        self.taken = 0

    def empty_cache(self) -> None:
        self.calls.append("empty_cache")

    # --- streams: everything is done at once
    def synchronize(self, device: object = NAME) -> None:
        return None

    def Stream(self, device: object = NAME) -> _Stream:
        return _Stream(stream_id=1, device_index=0, device_type=_device_type())

    def current_stream(self, device: object = NAME) -> _Stream:
        return _Stream(stream_id=0, device_index=0, device_type=_device_type())

    def stream(self, stream: object) -> Any:
        return nullcontext(stream)


class _Stream(torch.Stream):
    def synchronize(self) -> None:
        return None


class _Generator(torch.Generator):
    """A generator that says of which device it is; its numbers are the CPU's."""

    def __new__(cls, device: torch.device | str = "cpu") -> _Generator:
        made = super().__new__(cls)
        if torch.device(device).type == NAME:
            _generators.add(made._cdata)
            finalize(made, _generators.discard, made._cdata)
        return made


class _Opened:
    """A safetensors file that puts its tensors on a device; the library knows devices by a list of its own."""

    def __init__(self, path: object, framework: str, device: object = "cpu", **options: Any) -> None:
        self._there = torch.device(str(device)).type == NAME
        self._file = safetensors.safe_open(path, framework, device="cpu" if self._there else device, **options)

    def __enter__(self) -> _Opened:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def get_tensors(self) -> dict[str, Tensor]:
        return {name: tensor.to(NAME) if self._there else tensor for name, tensor in self._file.get_tensors().items()}


class _Guard(torch._C._acc.DeviceGuard):
    def type_(self) -> Any:
        return torch._C._autograd.DeviceType.PrivateUse1


class _Hooks(torch._C._acc.PrivateUse1Hooks):
    def is_available(self) -> bool:
        return _device.present

    def has_primary_context(self, device_index: int) -> bool:
        return _device.present

    def is_built(self) -> bool:
        return True


_device = _Device()
#: addresses of those that are of the device: Python's own objects for them come and go
_generators: set[int] = set()
_libraries: list[torch.library.Library] = []
#: PyTorch keeps pointers to them
_kept = (_Guard(), _Hooks())


def _device_type() -> int:
    return int(torch._C._autograd.DeviceType.PrivateUse1)


def _register() -> None:
    if _libraries:
        return
    guard, hooks = _kept
    _setup_privateuseone_for_python_backend(NAME, _device, hooks, guard)
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(_kernel, "PrivateUse1")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    for names, dtype in ((_LOWER, None), (_FP32, torch.float32)):
        for name in names:
            aten.impl(name, _autocast(_op(name), dtype), "AutocastPrivateUse1")
    _libraries.extend((everything, aten, _four_bit()))


#: an operation that has one of them can be computed by the CPU
_KERNELS = ("CPU", "CompositeExplicitAutograd")


def _four_bit() -> torch.library.Library:
    """bitsandbytes' operations by its kernels for the CPU: those for devices that it does not know are compiled."""
    library = torch.library.Library("bitsandbytes", "IMPL")
    for full in torch._C._dispatch_get_all_op_names():
        room, _, name = full.partition("::")
        if room == "bitsandbytes" and any(
            torch._C._dispatch_has_kernel_for_dispatch_key(full, key) for key in _KERNELS
        ):
            packet, _, overload = name.partition(".")
            op = getattr(getattr(torch.ops.bitsandbytes, packet), overload or "default")
            library.impl(name, partial(_kernel, op), "PrivateUse1")
    return library


def _op(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _autocast(op: Any, dtype: torch.dtype | None) -> Callable[..., Any]:
    """`op` with floating-point tensors cast to `dtype`; None: autocast's own."""

    def cast(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == torch.float64:
            return value
        return value.to(dtype or torch.get_autocast_dtype(NAME))

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
            return op(*_each(cast, args), **{name: _each(cast, value) for name, value in kwargs.items()})

    return kernel


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


def _kernel(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Any operation with a tensor of the device among its arguments, or that makes one there."""
    operation = _operation(op)
    given = dict(zip(operation.arguments, args, strict=False)) | kwargs
    _refuse_mixed(operation, given)
    if operation.name in _BY_HAND:
        return _BY_HAND[operation.name](*args)
    growing = {name: torch.empty(0, dtype=given[name].dtype) for name in operation.outs if not given[name].numel()}
    args = tuple(
        _tensor_if(tensor, _each(_on_cpu, value)) for tensor, value in zip(operation.takes_tensor, args, strict=False)
    )
    kwargs = {name: _each(_on_cpu, value) for name, value in kwargs.items()}
    if operation.draws:
        with _chance_of(given.get("generator")):
            found = op(*args, **kwargs | growing)
    else:
        found = op(*args, **kwargs | growing)
    for name, grown in growing.items():
        given[name].data = _from_cpu(grown)
    return _returned(operation, given, found)


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """Of lists and tuples each part, and any other value."""
    return type(value)(_each(function, part) for part in value) if type(value) in (list, tuple) else function(value)


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
    if generator is not None and generator._cdata not in _generators:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
    if generator is not None:
        yield
        return
    before = torch.get_rng_state()
    torch.set_rng_state(_device.chance.get_state())
    try:
        yield
    finally:
        _device.chance.set_state(torch.get_rng_state())
        torch.set_rng_state(before)


def _returned(operation: _Operation, given: dict[str, Any], found: Any) -> Any:
    """Results under the device's name: what was written to is itself, views are of what they look at."""
    to_cpu = given.get("device") is not None and torch.device(given["device"]).type == "cpu"

    def settle(source: str | None, is_written: bool, value: Any) -> Any:
        if source is None:
            return value if to_cpu else _each(_from_cpu, value)
        if is_written:
            return given[source]
        return _each(partial(_view, given[source]), value)

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
    _device.taken += value.nbytes
    capsule = torch._C._to_dlpack(value.detach())
    where = (ctypes.c_int32 * 2).from_address(_pointer(capsule, b"dltensor") + ctypes.sizeof(ctypes.c_void_p))
    where[:] = _EXTENSION, 0
    return torch._C._from_dlpack(capsule)


_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
