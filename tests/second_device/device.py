"""What PyTorch and safetensors ask of a device beside its tensors: streams, chance, counters, files."""

from __future__ import annotations

from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any
from weakref import finalize

import safetensors
import torch
from torch import Tensor

NAME = "elsewhere"
CPU = torch.device("cpu")
MEMORY = 2**40


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


class Generator(torch.Generator):
    """A generator that says of which device it is; its numbers are the CPU's."""

    def __new__(cls, device: torch.device | str = "cpu") -> Generator:
        made = super().__new__(cls)
        if torch.device(device).type == NAME:
            GENERATORS.add(made._cdata)
            finalize(made, GENERATORS.discard, made._cdata)
        return made


class OpenedFile:
    """A safetensors file that puts its tensors on a device; the library knows devices by a list of its own."""

    def __init__(self, path: object, framework: str, device: object = "cpu", **options: Any) -> None:
        self._there = torch.device(str(device)).type == NAME
        self._file = safetensors.safe_open(path, framework, device="cpu" if self._there else device, **options)

    def __enter__(self) -> OpenedFile:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def get_tensors(self) -> dict[str, Tensor]:
        return {name: tensor.to(NAME) if self._there else tensor for name, tensor in self._file.get_tensors().items()}


DEVICE = _Device()
#: addresses of those that are of the device: Python's own objects for them come and go
GENERATORS: set[int] = set()


def _device_type() -> int:
    return int(torch._C._autograd.DeviceType.PrivateUse1)
