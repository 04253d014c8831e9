"""The process of one of several devices: joins the others, does its work, and tells its parent about it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from publisher.errors import InfrastructureFault, PublisherError
from worker.alignment.distributed.rank import Several
from worker.context import StageContext

T = TypeVar("T")

#: (this process among the others, where to report) → what the parent gets, from the first of them
Work = Callable[[Several, StageContext], T]

#: How long one waits for another: whole models are loaded meanwhile. Who is dead is noticed by the parent at once.
_PATIENCE = timedelta(hours=6)
_PARENT_GONE = 3


@dataclass(frozen=True)
class Said:
    """A call of the parent's context: the name of its method and what it gets."""

    method: str
    arguments: tuple[Any, ...]

    def repeat(self, context: StageContext) -> None:
        getattr(context, self.method)(*self.arguments)


@dataclass(frozen=True)
class Returned(Generic[T]):
    value: T


@dataclass(frozen=True)
class Raised:
    """`at`: seconds of this machine's monotonic clock."""

    error: Exception
    at: float


@dataclass(frozen=True)
class Place:
    """Which of `devices` a process computes on; `meeting` is a file where all find each other, not there yet."""

    rank: int
    devices: tuple[str, ...]
    meeting: Path

    @property
    def device(self) -> str:
        return self.devices[self.rank]


class SentContext:
    """Rank 0's context: the parent's, at the other end of a pipe. It is the parent who checks, and ends all."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def check(self) -> None:
        return None

    def progress(self, done: float, total: float, unit: str) -> None:
        self._pipe.send(Said("progress", (done, total, unit)))

    def metric(self, name: str, step: int, value: float) -> None:
        self._pipe.send(Said("metric", (name, step, value)))

    def log(self, message: str) -> None:
        self._pipe.send(Said("log", (message,)))


class SilentContext:
    """Any other rank's: all of them know the same."""

    def check(self) -> None:
        return None

    def progress(self, done: float, total: float, unit: str) -> None:
        return None

    def metric(self, name: str, step: int, value: float) -> None:
        return None

    def log(self, message: str) -> None:
        return None


def run(place: Place, work: Work[Any], pipe: Connection) -> None:
    """The whole life of the process. What it raises goes to the parent, and it ends with status 1."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which asks all to save
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        value = _joined(place, work, pipe)
    except Exception as error:  # noqa: BLE001 - the border: whatever it is, the parent has to know
        pipe.send(Raised(_for_parent(place.device, error), time.monotonic()))
        sys.exit(1)
    pipe.send(Returned(value))


def _joined(place: Place, work: Work[T], pipe: Connection) -> T | None:
    device, ranks = torch.device(place.device), len(place.devices)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // ranks))
    if sys.platform == "linux":  # all are on this machine, and nobody else is to join
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # gloo beside NCCL: what is agreed on are numbers on the CPU
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    meeting = f"file://{place.meeting.absolute()}"
    dist.init_process_group(backend, init_method=meeting, rank=place.rank, world_size=ranks, timeout=_PATIENCE)
    mesh = init_device_mesh(device.type, (ranks,))
    context = SentContext(pipe) if place.rank == 0 else SilentContext()
    value = work(Several(place.rank, device, mesh), context)
    dist.destroy_process_group()
    return value if place.rank == 0 else None


def _for_parent(device: str, error: Exception) -> Exception:
    """Errors that speak for themselves, and of the disk, as they are; any other in words, since it may not travel."""
    if isinstance(error, PublisherError | OSError):
        return error
    traceback.print_exception(error)
    name = type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":
        way_out = "Take smaller batch_tokens or a shorter sequence_length, or a worker with more devices."
        return InfrastructureFault(f"out of memory on {device}: {error}", way_out=way_out)
    way_out = "It is tried again by itself; the worker's log holds the traceback."
    first = (str(error).strip().splitlines() or [""])[0]  # torch puts its own stack below
    return InfrastructureFault(f"aligning on {device} failed: {name}: {first}", way_out=way_out)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "this runs in a process that multiprocessing started"
    connection.wait([parent.sentinel])
    os._exit(_PARENT_GONE)
