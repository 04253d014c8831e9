"""Whether a worker holds a job: what it needs beside what is there, and what to say where nobody does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from publisher.plan.align import Machine
from publisher.plan.needs import Needs
from publisher.plan.queues import queue_of, queues_up_to
from publisher.plan.sizes import GIB
from publisher.recipe.stages import Stage

#: an estimate may be this much above what is there: it must not refuse what works
SLACK = 1.1


@dataclass(frozen=True)
class Capacity:
    """What a worker holds: `memory` in bytes of one device, `devices` that align together, and the `queues` that its
    operator restricts it to (None: all)."""

    machine: Machine
    memory: int
    devices: int = 1
    queues: frozenset[str] | None = None

    @property
    def together(self) -> int:
        """Bytes of all devices; processes on a CPU share one memory."""
        return self.memory * (self.devices if self.machine is Machine.GPU else 1)

    @property
    def consumed(self) -> list[str]:
        """The queues that it looks at: those that may have jobs which it holds."""
        names = queues_up_to(SLACK * self.together)
        return [name for name in names if self.queues is None or name in self.queues]

    def takes(self, needs: Needs | None) -> bool:
        """Whether its operator lets it."""
        return self.queues is None or queue_of(needs) in self.queues


@dataclass(frozen=True)
class Shortfall:
    """The stage for which most is missing, in bytes; `needed` None: several devices cannot do it together."""

    stage: str
    needed: int | None
    held: int

    @property
    def share(self) -> float:
        """Of what is needed, how much is there; what cannot be had by memory comes last."""
        if self.needed is None:
            return 0.0
        return self.held / self.needed if self.needed else math.inf


def shortfall(needs: Needs, capacity: Capacity) -> Shortfall | None:
    """None if it fits."""
    lacking = [found for found in _stages(needs, capacity) if found.share * SLACK < 1]
    return min(lacking, key=lambda found: found.share, default=None)


def _stages(needs: Needs, capacity: Capacity) -> Iterable[Shortfall]:
    for stage, need in needs.stages.items():
        if stage == Stage.ALIGN and capacity.devices > 1:
            several = needs.several
            needed = None if several is None else several.on(capacity.machine, capacity.devices)
            yield Shortfall(stage, needed, capacity.together)
        else:
            yield Shortfall(stage, need.on(capacity.machine), capacity.memory)


def holds(capacity: Capacity, needs: Needs | None) -> bool:
    """Whether the job fits and may be taken; of one of which nothing is known it is tried."""
    return capacity.takes(needs) and (needs is None or shortfall(needs, capacity) is None)


def suitable(needs: Needs | None, workers: Sequence[Capacity]) -> list[bool]:
    """For each worker whether the job is for it: those that hold it, of which GPUs alone where there is one and the job
    computes. Otherwise a CPU would be at it for weeks while a GPU is idle."""
    able = [holds(worker, needs) for worker in workers]
    of_gpus = [able[index] and worker.machine is Machine.GPU for index, worker in enumerate(workers)]
    return of_gpus if needs is not None and needs.gpu and any(of_gpus) else able


def missing(needs: Needs | None, workers: Sequence[Capacity]) -> str | None:
    """What a job waits for that none of these workers is for, as a sentence without its point; None: one is."""
    if not workers:
        return "no worker is running"
    if any(suitable(needs, workers)):
        return None
    willing = [worker for worker in workers if worker.takes(needs)]
    if not willing or needs is None:
        return f"no running worker takes jobs of queue {queue_of(needs)}"
    lacking = [found for worker in willing if (found := shortfall(needs, worker))]
    return _words(max(lacking, key=lambda found: found.share))


def _words(found: Shortfall) -> str:
    if found.needed is None:
        return "its recipe cannot be aligned by several devices together, and every running worker has several"
    needed, held = found.needed / GIB, found.held / GIB
    return f"stage {found.stage} needs {needed:.1f} GiB of memory; the largest worker holds {held:.1f}"
