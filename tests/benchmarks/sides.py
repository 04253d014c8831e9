"""Each side of a comparison runs in a process of its own: its peak memory is its own, and nothing is warm for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

_MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """`seconds` by the side's own clock, `cpu_seconds` of all its threads, which count when something runs beside.

    `peak` and `before` are bytes, at the most and before the work: resident, on a GPU of the allocator.
    """

    seconds: float
    cpu_seconds: float
    peak: int
    before: int

    def __str__(self) -> str:
        memory = f"peak {self.peak / _MIB:6,.0f} MiB ({self.before / _MIB:,.0f} before the work)"
        return f"{self.seconds:7.1f} s ({self.cpu_seconds:.1f} of CPU), {memory}"


def run_side(module: str, arguments: Mapping[str, object], threads: int = 2) -> Cost:
    """As `run_module`; the side ends with `report_side`."""
    return Cost(**json.loads(run_module(module, arguments, threads)))


def run_module(module: str, arguments: Mapping[str, object], threads: int = 2) -> str:
    """Run `python -m module` with `arguments`, in JSON, as its one command line argument; returns its last line."""
    environment = os.environ | {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore::FutureWarning"),  # they would bury the tables
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, "-m", module, json.dumps(dict(arguments))]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return run.stdout.splitlines()[-1]


def asked_side() -> dict[str, Any] | None:
    """The arguments if this process is a side."""
    is_side = len(sys.argv) > 1 and sys.argv[1].startswith("{")
    return json.loads(sys.argv[1]) if is_side else None


def report_side(work: Callable[[], object], device: str = "cpu") -> None:
    """Do `work` on `device`, and print what it took."""
    before = _on_gpu(device, torch.cuda.memory_allocated) or resident("VmRSS")
    _on_gpu(device, torch.cuda.reset_peak_memory_stats)
    cpu, start = time.process_time(), time.perf_counter()
    work()
    _on_gpu(device, torch.cuda.synchronize)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    peak = _on_gpu(device, torch.cuda.max_memory_allocated) or resident("VmHWM")
    print(json.dumps(asdict(Cost(seconds, cpu_seconds, peak, before))))


def _on_gpu(device: str, ask: Callable[[str], int | None]) -> int | None:
    return ask(device) if device.startswith("cuda") else None


def resident(counter: str) -> int:
    """Bytes of this process (Linux): VmRSS now, VmHWM at the most."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{counter}:"))


def sequences(samples: int, length: int, vocabulary: int) -> torch.Tensor:
    """`(samples, length)` random tokens."""
    return torch.randint(0, vocabulary, (samples, length), generator=torch.Generator().manual_seed(1))
