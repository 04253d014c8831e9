"""A second device on a machine without one: tensors of `elsewhere` lie apart from the CPU's, and refuse to meet them.

Most faults of code that runs on a GPU for the first time are of one kind: a tensor that was made on the CPU meets one
of the GPU. Where the CPU is the only device nothing can show it. Here PyTorch gets another one, of the kind that it
keeps for makers of hardware (PrivateUse1), with all that code asks a device for: autograd, autocast, `torch.nn`,
generators, streams, counters of memory. Values are the CPU's, computed by the CPU: a tensor of `elsewhere` is memory
of the CPU under another device's name, and every operation without a kernel of its own comes to `kernel`
(kernel.py), which takes the name away, computes, and gives it back.

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

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import bitsandbytes  # noqa: F401 - registers its operations
import safetensors.torch
import torch
import torch._dynamo
from torch import Tensor
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from tests.second_device.device import DEVICE, NAME, Generator, OpenedFile
from tests.second_device.kernel import each, kernel

#: what CUDA's autocast computes in the lower precision, as far as anything here uses it, and what it keeps in fp32
_LOWER = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "addbmm", "scaled_dot_product_attention")
_FP32 = ("log_softmax.int", "softmax.int", "nll_loss", "cross_entropy_loss", "kl_div", "mse_loss", "pow.Tensor_Scalar")
_FP32 += ("sum", "sum.dim_IntList", "prod", "cumsum", "rsqrt", "log", "exp", "norm.Scalar", "cosine_similarity")


@contextmanager
def second_device() -> Iterator[torch.device]:
    """Within, PyTorch has the device, which it gives."""
    _register()
    DEVICE.present = True
    DEVICE.chance.manual_seed(0)
    generators = patch.object(torch, "Generator", Generator)
    pinning = patch.object(Tensor, "pin_memory", lambda tensor, *_: tensor.clone())
    loading = patch.object(safetensors.torch, "safe_open", OpenedFile)
    eager = torch._dynamo.config.patch(disable=True)
    one_thread = torch.autograd.set_multithreading_enabled(False)  # stacks then begin in the test
    try:
        with generators, pinning, loading, eager, one_thread:
            yield torch.device(NAME, 0)
    finally:
        DEVICE.present = False


class _Guard(torch._C._acc.DeviceGuard):
    def type_(self) -> Any:
        return torch._C._autograd.DeviceType.PrivateUse1


class _Hooks(torch._C._acc.PrivateUse1Hooks):
    def is_available(self) -> bool:
        return DEVICE.present

    def has_primary_context(self, device_index: int) -> bool:
        return DEVICE.present

    def is_built(self) -> bool:
        return True


_libraries: list[torch.library.Library] = []
#: PyTorch keeps pointers to them
_kept = (_Guard(), _Hooks())


def _register() -> None:
    if _libraries:
        return
    guard, hooks = _kept
    _setup_privateuseone_for_python_backend(NAME, DEVICE, hooks, guard)
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(kernel, "PrivateUse1")
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
            library.impl(name, partial(kernel, op), "PrivateUse1")
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
            return op(*each(cast, args), **{name: each(cast, value) for name, value in kwargs.items()})

    return kernel
