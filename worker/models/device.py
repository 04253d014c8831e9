"""Which device this machine computes on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import torch

from publisher.errors import InfrastructureFault


@dataclass(frozen=True)
class Device:
    """`name` is torch's (`cpu`, `cuda:0`), `model` the maker's; `memory` in bytes."""

    name: str
    model: str
    memory: int


def is_gpu(device: torch.device | str) -> bool:
    """Whether it has memory and a queue of its own: CUDA, or any other accelerator that torch knows."""
    return torch.device(device).type != "cpu"


def module_of(device: torch.device | str) -> ModuleType:
    """Where torch keeps a GPU's streams, memory and random state: `torch.cuda` for CUDA."""
    module: ModuleType = torch.get_device_module(torch.device(device))
    return module


@contextmanager
def fp32_products(device: torch.device | str) -> Iterator[None]:
    """Matrix products of fp32 within: exact on a CPU, and on a GPU by TF32, which rounds what is multiplied to 10 bits
    of mantissa and adds up in fp32. An H200 does 67 TFLOP/s exactly and 494 so (NVIDIA's data sheet)."""
    allowed = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if is_gpu(device) else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(allowed)


def choose_device(setting: str) -> Device:
    """The device that `setting` names (PUBLISHER_WORKER_DEVICE or --device); `auto`: the first GPU, or else the CPU.

    Raises InfrastructureFault if it is not there.
    """
    if setting == "cpu" or (setting == "auto" and not torch.cuda.device_count()):
        return Device("cpu", platform.processor() or platform.machine(), _physical_memory())
    device = torch.device("cuda" if setting == "auto" else setting)
    available = module_of(device).device_count()
    if (device.index or 0) >= available:
        way_out = (
            "Choose auto, cpu, or a device that is there (PUBLISHER_WORKER_DEVICE or _DEVICES, --device or --devices)."
        )
        raise InfrastructureFault(
            f"there is no {setting}: this machine has {available} {device.type.upper()} devices.", way_out=way_out
        )
    properties = module_of(device).get_device_properties(device)
    return Device(str(device), str(properties.name), int(properties.total_memory))


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
