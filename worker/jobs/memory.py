"""How much memory the stages of a job take: of the process, and of the GPUs that it uses.

Sampled with every pulse, and once more from the counters of the system and of torch when a stage ends. A stage that
resets these counters for a measurement of its own may have had a peak between two samples that is missed. What other
processes of the job take (several devices that align together) is theirs.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class StageMemory:
    """Shared by the thread that samples and the one that works."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._peaks: dict[str, int] = {}

    def begin(self) -> None:
        """A stage starts: what was before is not its doing."""
        _reset_counters()
        with self._lock:
            self._peaks.clear()

    def sample(self) -> None:
        """What is held now."""
        self._keep({"cpu": _resident("VmRSS"), "gpu": _of_gpus("memory_reserved")})

    def end(self) -> dict[str, int]:
        """Bytes at the peak since the stage began, of `cpu` and, where it was used, `gpu`."""
        self._keep({"cpu": _resident("VmHWM"), "gpu": _of_gpus("max_memory_reserved")})
        with self._lock:
            return {kind: peak for kind, peak in self._peaks.items() if peak}

    def _keep(self, found: dict[str, int]) -> None:
        with self._lock:
            for kind, held in found.items():
                self._peaks[kind] = max(held, self._peaks.get(kind, 0))


def _resident(counter: str) -> int:
    """Bytes; 0 where the system does not tell (macOS)."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{counter}:")), 0)


def _of_gpus(counter: str) -> int:
    """Bytes that torch has taken of all GPUs together; 0 while it is not loaded or has used none."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
        return 0
    return sum(int(getattr(torch.cuda, counter)(device)) for device in range(torch.cuda.device_count()))


def _reset_counters() -> None:
    with suppress(OSError):  # not Linux, or a sandbox: the peak is then that of the process's whole life
        _CLEAR_REFS.write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)
