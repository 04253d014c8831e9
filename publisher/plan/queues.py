"""Queues by what their jobs need: one for jobs that compute nothing, and one for each power of two in GiB."""

from __future__ import annotations

from publisher.configuration.workers import NO_GPU_QUEUE, QUEUE_SIZES
from publisher.plan.needs import Needs
from publisher.plan.sizes import GIB

NAMES = (NO_GPU_QUEUE, *(str(size) for size in QUEUE_SIZES))


def queue_of(needs: Needs | None) -> str:
    """The queue of a job: `cpu`, or the GiB that hold it on some kind of worker, rounded up to a power of two. Where
    nothing is known of it, the first that every worker looks at."""
    if needs is None:
        return str(QUEUE_SIZES[0])
    return _size(least_bytes(needs)) if needs.gpu else NO_GPU_QUEUE


def queues_up_to(held: float) -> list[str]:
    """Every queue that may have jobs for devices which hold `held` bytes together."""
    return [NO_GPU_QUEUE, *(str(size) for size in QUEUE_SIZES if size <= int(_size(held)))]


def least_bytes(needs: Needs) -> int:
    """What the devices of any worker that holds it have together, at the least."""
    ways = [needs.gpu_bytes, needs.cpu_bytes]
    if needs.several is not None:
        ways += [needs.several.gpu.on(2), needs.several.cpu.on(2)]
    return min(ways)


def _size(held: float) -> str:
    return str(next((size for size in QUEUE_SIZES if held <= size * GIB), QUEUE_SIZES[-1]))
