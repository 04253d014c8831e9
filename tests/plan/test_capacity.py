"""Which workers a job is for, and what is said where there is none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from publisher.plan.align import Machine
from publisher.plan.capacity import Capacity, holds, missing, suitable
from publisher.plan.needs import Needs, Several, StageNeeds, Together
from publisher.plan.queues import NAMES, queue_of
from publisher.plan.sizes import GIB

SIZE = st.integers(0, 8000 * GIB)


def needs(gpu: int, cpu: int | None = None, several: tuple[int, int] | None = None, *, computes: bool = True) -> Needs:
    """Bytes; `several`: shared and each, the same on both machines."""
    cpu = gpu if cpu is None else cpu
    together = several and Together(shared=several[0], each=several[1])
    return Needs(
        gpu_bytes=gpu,
        cpu_bytes=cpu,
        gpu=computes,
        disk_bytes=0,
        several=Several(gpu=together, cpu=together) if together else None,
        stages={
            "fetch": StageNeeds(gpu_bytes=0, cpu_bytes=0, gpu=False),
            "align": StageNeeds(gpu_bytes=gpu, cpu_bytes=cpu, gpu=computes),
        },
    )


def gpu(gib: float, devices: int = 1, queues: frozenset[str] | None = None) -> Capacity:
    return Capacity(Machine.GPU, int(gib * GIB), devices, queues)


def cpu(gib: float) -> Capacity:
    return Capacity(Machine.CPU, int(gib * GIB))


CAPACITIES = st.builds(Capacity, st.sampled_from(Machine), SIZE, st.integers(1, 8))


@given(SIZE, SIZE, st.none() | st.tuples(SIZE, SIZE), st.booleans(), CAPACITIES)
def test_a_worker_looks_at_the_queue_of_every_job_that_it_holds(
    on_gpu: int, on_cpu: int, several: tuple[int, int] | None, computes: bool, worker: Capacity
) -> None:
    job = needs(on_gpu, on_cpu, several, computes=computes)
    assert queue_of(job) in NAMES
    assert queue_of(job) in worker.consumed or not holds(worker, job)


def test_a_tenth_more_than_there_is_is_tried() -> None:
    assert holds(gpu(80), needs(int(87.9 * GIB)))
    assert not holds(gpu(80), needs(int(88.1 * GIB)))


def test_several_devices_align_together_what_one_does_not_hold() -> None:
    job = needs(200 * GIB, several=(100 * GIB, 20 * GIB))
    assert not holds(gpu(80), job)
    assert holds(gpu(80, devices=2), job)


def test_several_devices_do_not_hold_what_one_of_them_does_by_itself() -> None:
    job = needs(60 * GIB, several=(30 * GIB, GIB))
    measured = {"evaluate": StageNeeds(gpu_bytes=60 * GIB, cpu_bytes=60 * GIB, gpu=True)}
    job = job.model_copy(update={"stages": job.stages | measured})
    assert not holds(gpu(40, devices=2), job)
    assert missing(job, [gpu(40, devices=2)]) == (
        "stage evaluate needs 60.0 GiB of memory; the largest worker holds 40.0"
    )


def test_processes_on_a_cpu_share_its_memory() -> None:
    job = needs(200 * GIB, several=(100 * GIB, 10 * GIB))
    assert not holds(Capacity(Machine.CPU, 80 * GIB, devices=4), job)
    assert holds(Capacity(Machine.CPU, 140 * GIB, devices=4), job)


def test_a_job_that_computes_is_for_gpus_where_one_holds_it() -> None:
    small, large = needs(8 * GIB), needs(100 * GIB)
    workers = [cpu(500), gpu(80), gpu(4)]
    assert suitable(small, workers) == [False, True, False]
    assert suitable(large, workers) == [True, False, False], "rather there than nowhere"
    assert suitable(needs(GIB, computes=False), workers) == [True, True, True]


def test_what_is_missing_is_named_by_what_comes_nearest() -> None:
    job = needs(209 * GIB)
    assert missing(job, []) == "no worker is running"
    assert missing(job, [gpu(24), gpu(80), cpu(64)]) == (
        "stage align needs 209.0 GiB of memory; the largest worker holds 80.0"
    )
    assert missing(job, [gpu(24), gpu(200)]) is None
    alone = missing(needs(209 * GIB), [gpu(80, devices=4)])
    assert alone is not None
    assert "cannot be aligned by several devices" in alone


def test_a_worker_that_is_restricted_takes_no_other_queues() -> None:
    job = needs(40 * GIB)
    assert holds(gpu(80, queues=frozenset({"64"})), job)
    restricted = gpu(80, queues=frozenset({"cpu", "8"}))
    assert restricted.consumed == ["cpu", "8"]
    assert not holds(restricted, job)
    assert missing(job, [restricted]) == "no running worker takes jobs of queue 64"


def test_a_job_of_which_nothing_is_known_is_for_everybody() -> None:
    assert holds(gpu(1), None)
    assert queue_of(None) in gpu(1).consumed
