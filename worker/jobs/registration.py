"""A worker's row: what it measured of itself when it started, what it holds, and when it was last seen."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from publisher.configuration.workers import device_names, queue_names
from publisher.errors import InfrastructureFault
from publisher.files.disk import free_bytes
from publisher.plan.align import Machine
from publisher.plan.capacity import Capacity
from publisher.plan.queues import NAMES
from publisher.settings import Settings
from publisher.store.database import Database, database_now
from publisher.store.faults import why_away
from publisher.store.models import Worker
from publisher.store.resources import note_stop

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measurement:
    """`device` for people, `kind` of Machine; floating-point operations per second in the type that it computes in, and
    in fp32; bytes of each of `devices`, which align together."""

    device: str
    flops_per_second: float
    fp32_flops_per_second: float
    memory_bytes: int
    kind: str = Machine.CPU.value
    devices: int = 1

    def capacity(self, settings: Settings) -> Capacity:
        """What it holds, of the jobs that its operator lets it take."""
        queues = frozenset(queue_names(settings.worker_queues))
        return Capacity(Machine(self.kind), self.memory_bytes, self.devices, queues or None)


def measure(settings: Settings) -> Measurement:
    """Measure in a process of its own, whose GPU memory is free again afterwards.

    Raises InfrastructureFault if this machine cannot compute.
    """
    together = device_names(settings.worker_devices)
    command = [sys.executable, "-m", "worker.jobs.registration", settings.worker_device, *together]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InfrastructureFault(f"this machine cannot compute on device {settings.worker_device}: {last}")
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


class Registration:
    """Keeps the row of worker `name` fresh from a thread, every `settings.heartbeat_seconds`."""

    def __init__(self, database: Database, settings: Settings, name: str, measured: Measurement) -> None:
        self._database = database
        self._settings = settings
        self._name = name
        self._measured = measured
        self._started_at = time.time()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="registration", daemon=True)

    def start(self) -> None:
        logger.info("%s is ready", self._name, extra=asdict(self._measured))
        self._thread.start()

    def stop(self) -> None:
        """The row stays: plans go by what was measured while no worker runs, too."""
        self._stop.set()
        self._thread.join()
        try:
            self._say_stopped()
        except SQLAlchemyError as error:
            logger.warning("that worker %s has stopped is not told: %s", self._name, why_away(error))

    def _say_stopped(self) -> None:
        with self._database.write() as session:
            note_stop(session, self._name)

    def _run(self) -> None:
        while True:
            try:
                self.refresh()
            except SQLAlchemyError as error:
                logger.warning("worker %s is not seen: %s", self._name, why_away(error))
            if self._stop.wait(self._settings.heartbeat_seconds):
                return

    def refresh(self) -> None:
        """Write the row, seen now."""
        row = Worker(
            id=self._name,
            **asdict(self._measured),
            seen_at=0.0,
            free_disk_bytes=_free_disk(self._settings.stages_dir),
            host=socket.gethostname(),
            started_at=self._started_at,
            queues=list(queue_names(self._settings.worker_queues) or NAMES),
            stopped_at=None,
        )
        with self._database.write() as session:
            session.merge(row).seen_at = database_now()


def _free_disk(folder: Path) -> int | None:
    try:
        return free_bytes(folder)
    except OSError:
        return None


def main() -> None:
    """Print the measurement of the device named by the first argument as JSON; further ones align together."""
    import torch

    from worker.models.device import choose_device
    from worker.models.measure import compute_dtype, measure_flops

    device = choose_device(sys.argv[1])
    together = [choose_device(name) for name in sys.argv[2:]]
    speed = fp32 = measure_flops(device.name)
    if compute_dtype(device.name) is not torch.float32:
        fp32 = measure_flops(device.name, torch.float32)
    measured = Measurement(
        device=f"{device.name} ({device.model})",
        flops_per_second=speed,
        fp32_flops_per_second=fp32,
        memory_bytes=min(each.memory for each in (device, *together)),
        kind=(Machine.CPU if device.name == "cpu" else Machine.GPU).value,
        devices=len(together) or 1,
    )
    sys.stdout.write(json.dumps(asdict(measured)) + "\n")


if __name__ == "__main__":
    main()
