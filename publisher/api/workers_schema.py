"""Workers in answers."""

from __future__ import annotations

from collections.abc import Set
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, Field

from publisher.jobs.fleet import capacity_of
from publisher.plan.align import Machine
from publisher.plan.queues import NAMES
from publisher.store.models import Worker


class WorkerState(StrEnum):
    """`away`: not seen for longer than a lease lasts."""

    IDLE = "idle"
    BUSY = "busy"
    AWAY = "away"

    @classmethod
    def of(cls, worker: str, live: Set[str], busy: Set[str]) -> Self:
        if worker not in live:
            return cls("away")
        return cls("busy" if worker in busy else "idle")


class WorkerAnswer(BaseModel):
    """What a worker measured of itself when it started, and what it holds."""

    id: str = Field(description="its Celery name; each start has another one, unless it is started with -n")
    state: WorkerState = Field(description="idle, busy with somebody's job, or away")
    kind: Machine = Field(description="what it computes on")
    device: str = Field(description="the device's name and model")
    memory_bytes: int = Field(description="memory of one device")
    devices: int = Field(description="devices that align together")
    free_disk_bytes: int | None = Field(description="free for its stages when it was last seen; null: unknown")
    queues: list[str] = Field(description="those whose jobs it takes, if it holds them: cpu, or GiB that jobs need")
    flops_per_second: float = Field(description="measured in matrix products, in the type that it computes in")
    host: str | None = Field(description="the machine that it runs on")
    started_at: float | None = Field(description="seconds since 1970")
    seen_at: float = Field(description="seconds since 1970")

    @classmethod
    def of(cls, row: Worker, state: WorkerState) -> Self:
        capacity = capacity_of(row)
        return cls(
            id=row.id,
            state=state,
            kind=capacity.machine,
            device=row.device,
            memory_bytes=row.memory_bytes,
            devices=row.devices,
            free_disk_bytes=row.free_disk_bytes,
            queues=[name for name in NAMES if capacity.queues is None or name in capacity.queues],
            flops_per_second=row.flops_per_second,
            host=row.host,
            started_at=row.started_at,
            seen_at=row.seen_at,
        )


class Workers(BaseModel):
    items: list[WorkerAnswer] = Field(description="all that were seen within a day")
