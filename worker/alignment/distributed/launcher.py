"""Training on several devices: one process each, started, listened to and ended by the process of the stage.

Whoever stops the stage (a cancelled job, a worker that shuts down, Ctrl-C) stops them by SIGTERM: at the next
micro-batch they agree on it, save the state and end. One that dies takes the others down, and the stage fails so that
it is tried again, from the last state that all of them saved.
"""

from __future__ import annotations

import multiprocessing
import secrets
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from publisher.errors import InfrastructureFault, RequestFault
from worker.alignment.distributed.process import Place, Raised, Returned, Said, Work, run
from worker.alignment.termination import DeferredSigterm
from worker.context import StageContext

T = TypeVar("T")

_LOOK_SECONDS = 0.2
#: For those that are asked to end: a micro-batch, and saving. Who is in a hurry kills the whole group (supervision).
_SAVING_SECONDS = 120.0
#: For the others when one has died: to end by themselves, and say of what.
_GRACE_SECONDS = 5.0


def run_on_devices(work: Work[T], devices: Sequence[str], folder: Path, context: StageContext) -> T:
    """`work` in one process for each of `devices`; what the first of them returns. `work` has to be picklable.

    `folder` holds the file where they meet. Raises what a process raised, InfrastructureFault if one died, and what
    `context` raises. No process is left when this returns or raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _Launcher(work, devices, folder) as launcher, DeferredSigterm() as sigterm:
        while launcher.is_working():
            for said in launcher.listen(_LOOK_SECONDS):
                said.repeat(context)
            if sigterm.received:
                launcher.stop()
                sigterm.deliver()
            context.check()
    return launcher.result()


def _start_method(devices: Sequence[str]) -> str:
    """A process that was forked cannot use CUDA if an import before it did; where all compute on the CPU it can, and
    torch is imported once for all."""
    on_cpu = all(device == "cpu" for device in devices)
    return "forkserver" if on_cpu and "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


class _Launcher(Generic[T]):
    """The processes, and what they said of how they ended."""

    def __init__(self, work: Work[T], devices: Sequence[str], folder: Path) -> None:
        self._devices = tuple(devices)
        self._meeting = folder / f"meeting-{secrets.token_hex(8)}"
        self._processes: list[BaseProcess] = []
        self._pipes: dict[Connection, int] = {}
        self._returned: dict[int, T] = {}
        self._raised: list[Raised] = []
        self._killed: set[int] = set()
        self._failed_at: float | None = None
        self._work = work

    def __enter__(self) -> Self:
        for left in self._meeting.parent.glob("meeting-*"):
            left.unlink()  # by a process that was killed
        starting: Any = multiprocessing.get_context(_start_method(self._devices))
        if starting.get_start_method() == "forkserver":
            starting.set_forkserver_preload(["worker.stages.align.stage"])
        try:
            for rank in range(len(self._devices)):
                self._start(starting, Place(rank, self._devices, self._meeting))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _start(self, starting: Any, place: Place) -> None:
        receiving, sending = starting.Pipe(duplex=False)
        process = starting.Process(target=run, args=(place, self._work, sending), daemon=True)
        process.start()
        sending.close()
        self._processes.append(process)
        self._pipes[receiving] = place.rank

    def is_working(self) -> bool:
        """Until all have ended. If one has failed, the others get some time before they are killed."""
        self._failed_at = self._failed_at or (time.monotonic() if self._one_failed() else None)
        if self._failed_at is not None and time.monotonic() - self._failed_at > _GRACE_SECONDS:
            self._kill()
        return bool(self._pipes)

    def listen(self, seconds: float) -> Iterator[Said]:
        """What is said within `seconds`, as it comes."""
        for pipe in connection.wait(list(self._pipes), seconds):
            assert isinstance(pipe, Connection)
            yield from self._received(pipe)

    def _received(self, pipe: Connection) -> Iterator[Said]:
        try:
            message = pipe.recv()
        except (EOFError, ConnectionResetError):  # a process that is gone
            self._processes[self._pipes.pop(pipe)].join()
            pipe.close()
            return
        if isinstance(message, Said):
            yield message
        elif isinstance(message, Returned):
            self._returned[self._pipes[pipe]] = message.value
        elif isinstance(message, Raised):
            self._raised.append(message)

    def _one_failed(self) -> bool:
        return bool(self._raised) or any(process.exitcode not in (None, 0) for process in self._processes)

    def stop(self) -> None:
        """Ask those that still work to save and end, wait for them, and tidy up."""
        deadline = time.monotonic() + _SAVING_SECONDS
        for process in self._processes:
            if process.is_alive():
                process.terminate()
        while self.is_working() and time.monotonic() < deadline:
            for _ in self.listen(_LOOK_SECONDS):
                pass  # nobody wants to know any more, but a full pipe would keep them
        self._kill()
        self._meeting.unlink(missing_ok=True)

    def _kill(self) -> None:
        for rank, process in enumerate(self._processes):
            if process.is_alive():
                self._killed.add(rank)
                process.kill()
            process.join()

    def result(self) -> T:
        """Raises what is most telling of what went wrong."""
        if all(process.exitcode == 0 for process in self._processes) and 0 in self._returned:
            return self._returned[0]
        # whoever lost touch with one that failed says so later
        raised = [one.error for one in sorted(self._raised, key=lambda one: one.at)]
        faults = [error for error in raised if isinstance(error, RequestFault)]
        died = [fault for fault in map(self._death, range(len(self._processes))) if fault]
        raise (*faults, *died, *raised, InfrastructureFault("aligning on several devices gave no result."))[0]

    def _death(self, rank: int) -> InfrastructureFault | None:
        """If it did not end by itself, nor for another's failure."""
        code = self._processes[rank].exitcode or 0
        if code >= 0 or rank in self._killed:
            return None
        name = f"signal {-code}"
        with suppress(ValueError):
            name = signal.Signals(-code).name
        return InfrastructureFault(
            f"the process that aligned on {self._devices[rank]} died from {name}.",
            way_out="It is tried again by itself, from the last saved state. SIGKILL may mean a lack of memory.",
        )
