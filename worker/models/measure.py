"""What a piece of work took: peak memory, and how fast this machine multiplies."""

from __future__ import annotations

import ctypes
import gc
import math
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from worker.models.device import fp32_products, is_gpu, module_of

_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK_RSS = "5"


@dataclass
class PeakMemory:
    """`bytes` is set when the context ends. On a GPU: allocated tensors; on the CPU: the process's resident set."""

    bytes: int = 0


@contextmanager
def peak_memory(device: torch.device | str) -> Iterator[PeakMemory]:
    """Measure the peak from entering to leaving; not nestable, since both counters are one per process."""
    peak, device = PeakMemory(), torch.device(device)
    _reset(device)
    try:
        yield peak
    finally:
        peak.bytes = current_peak(device)


def current_peak(device: torch.device) -> int:
    """Bytes at the peak since the last `peak_memory` began."""
    return int(module_of(device).max_memory_allocated(device)) if is_gpu(device) else _peak_resident_bytes()


def _reset(device: torch.device) -> None:
    if is_gpu(device):
        torch.empty(1, device=device)  # before a GPU's first use there are no counters to reset
        module_of(device).reset_peak_memory_stats(device)
        return
    _return_freed_memory()
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK_RSS)
    except OSError:
        return  # not Linux, or a sandbox: the peak is then that of the process's whole life


def _return_freed_memory() -> None:
    """What earlier work freed but the allocator keeps would count as this work's."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # glibc
        trim(0)


def _peak_resident_bytes() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure_flops(device: torch.device | str, dtype: torch.dtype | None = None, seconds: float = 0.3) -> float:
    """Floating-point operations per second of a matrix product in the dtype that this device computes in.

    Square matrices: 768 wide on the CPU, 4096 on a GPU, which is what the layers of the models there look like. Of
    fp32 as gradient matching computes it: `fp32_products`.
    """
    device = torch.device(device)
    with fp32_products(device):
        return _fastest(device, dtype or compute_dtype(device), seconds)


def _fastest(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    size = 4096 if is_gpu(device) else 768
    left = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty_like(left)
    torch.mm(left, left, out=out)
    synchronize(device)
    fastest, start = math.inf, time.perf_counter()
    while time.perf_counter() - start < seconds or not math.isfinite(fastest):
        product_start = time.perf_counter()
        torch.mm(left, left, out=out)
        synchronize(device)
        fastest = min(fastest, time.perf_counter() - product_start)
    # the fastest, since whatever else starts on the machine at the same time only makes products slower
    return 2 * size**3 / fastest


def compute_dtype(device: torch.device | str) -> torch.dtype:
    """The dtype of matrix products: bf16 on a GPU; fp32 on a CPU.

    Measured on two cores of a Xeon with AVX-512 BF16 but no AMX, (1024, 576) by (576, 1536): 276 GFLOP/s in
    fp32, 141 in bf16.
    """
    return torch.bfloat16 if is_gpu(device) else torch.float32


def synchronize(device: torch.device) -> None:
    """Wait for the GPU, so that a clock that is read next is right."""
    if is_gpu(device):
        module_of(device).synchronize(device)
