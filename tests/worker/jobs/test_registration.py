"""A worker knows how fast it is, and shows that it lives."""

from __future__ import annotations

import os
import shutil
import socket

import pytest

from publisher.errors import InfrastructureFault
from publisher.jobs.fleet import capacity_of
from publisher.plan.align import Machine
from publisher.plan.capacity import Capacity
from publisher.settings import Settings
from publisher.store.database import Database
from publisher.store.models import Worker
from tests import servers
from worker.jobs.registration import Measurement, Registration, measure

MEASURED = Measurement("cpu", 1e9, 5e8, 2**30)


def seen_at(database: Database) -> float:
    with database.read() as session:
        worker = session.get(Worker, "w1")
    return worker.seen_at if worker else 0.0


def test_measured_speed_and_memory_are_those_of_this_machine(settings: Settings) -> None:
    measured = measure(settings.model_copy(update={"worker_device": "cpu"}))
    assert measured.device.startswith("cpu")
    assert 1e8 < measured.flops_per_second < 1e15
    assert measured.fp32_flops_per_second == measured.flops_per_second, "a CPU computes in fp32"
    assert measured.memory_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_device_that_is_not_there_is_refused_with_those_that_are(settings: Settings) -> None:
    with pytest.raises(InfrastructureFault, match="there is no cuda:99: this machine has"):
        measure(settings.model_copy(update={"worker_device": "cuda:99"}))


def test_living_worker_is_seen_again_and_again(database: Database, settings: Settings) -> None:
    often = settings.model_copy(update={"heartbeat_seconds": 0.05})
    registration = Registration(database, often, "w1", MEASURED)
    registration.start()
    servers.wait_until(lambda: seen_at(database) > 0, "registration")
    first = seen_at(database)
    servers.wait_until(lambda: seen_at(database) > first, "second heartbeat")
    registration.stop()
    with database.read() as session:
        worker = session.get_one(Worker, "w1")
        assert (worker.device, worker.memory_bytes) == ("cpu", 2**30)
        assert (worker.flops_per_second, worker.fp32_flops_per_second) == (1e9, 5e8)


def test_worker_that_starts_again_replaces_its_row(database: Database, settings: Settings) -> None:
    Registration(database, settings, "w1", MEASURED).refresh()
    Registration(database, settings, "w1", Measurement("cuda", 2e12, 1e11, 2**36, "gpu", 2)).refresh()
    with database.read() as session:
        assert session.get_one(Worker, "w1").device == "cuda"


def test_a_worker_s_row_says_what_it_holds(database: Database, settings: Settings) -> None:
    restricted = settings.model_copy(update={"worker_queues": "cpu,8"})
    Registration(database, restricted, "w1", Measurement("cuda", 2e12, 1e11, 2**36, "gpu", 2)).refresh()
    with database.read() as session:
        worker = session.get_one(Worker, "w1")
    assert capacity_of(worker) == Capacity(Machine.GPU, 2**36, 2, frozenset({"cpu", "8"}))
    assert worker.free_disk_bytes == pytest.approx(shutil.disk_usage("/tmp").free, rel=0.5)
    assert worker.host == socket.gethostname()
    assert worker.started_at is not None
    assert abs(worker.started_at - worker.seen_at) < 60


def test_devices_that_align_together_count(settings: Settings) -> None:
    measured = measure(settings.model_copy(update={"worker_device": "cpu", "worker_devices": "cpu,cpu"}))
    assert (measured.kind, measured.devices) == ("cpu", 2)


def test_a_worker_looks_at_the_queues_of_what_it_holds(settings: Settings) -> None:
    measured = Measurement("cuda", 2e12, 1e11, 6 * 2**30, "gpu")
    assert measured.capacity(settings).consumed == ["cpu", "1", "2", "4", "8"]
    restricted = settings.model_copy(update={"worker_queues": "8,4096"})
    assert measured.capacity(restricted).consumed == ["8"]
