"""What a plan is asked for, and what it answers."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from publisher.jobs.fleet import capacity_of
from publisher.plan.align import Machine
from publisher.plan.capacity import holds
from publisher.plan.needs import Needs
from publisher.plan.plan import Plan
from publisher.recipe import Recipe
from publisher.store.models import Worker

RECIPE_EXAMPLE: dict[str, Any] = {
    "pruning": {
        "criterion": "taylor",
        "ratio": 0.65,
        "protect_first": 4,
        "protect_last": 2,
        "calibration": {"corpus": "fineweb-sample", "samples": 32, "sequence_length": 256},
    },
    "alignment": {"corpora": [{"name": "fineweb-sample", "weight": 1.0}], "tokens": 200_000},
    "quantization": {"scheme": "nf4"},
    "evaluation": {"corpora": ["fineweb-sample"], "probe": True},
    "seed": 0,
}


class PlanRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"base_model_id": "base_…", "recipe": RECIPE_EXAMPLE}]}
    )

    base_model_id: str = Field(min_length=1, max_length=64, description="a registered base model")
    recipe: Recipe = Field(description="what is planned")


class PlannedWorker(BaseModel):
    """A worker that is running now."""

    id: str = Field(description="as in GET /v1/workers")
    kind: Machine = Field(description="what it computes on")
    memory_bytes: int = Field(description="memory of one device")
    devices: int = Field(description="devices that align together")
    holds: bool = Field(description="whether a job of this plan fits, and its operator lets it be taken")
    takes: bool = Field(description="whether it would get one: of those that hold it GPUs alone, if the job computes")

    @classmethod
    def of(cls, row: Worker, needs: Needs, *, chosen: bool) -> Self:
        capacity = capacity_of(row)
        return cls(
            id=row.id,
            kind=capacity.machine,
            memory_bytes=row.memory_bytes,
            devices=row.devices,
            holds=holds(capacity, needs),
            takes=chosen,
        )


class Refusal(BaseModel):
    """Why POST /v1/variants would refuse this recipe as things stand."""

    field: str | None = Field(description="path in a variant's request")
    message: str = Field(description="what is wrong")
    way_out: str | None = Field(description="what would be right")


class PlanAnswer(Plan):
    refused: Refusal | None = Field(description="null: a variant of this recipe would be accepted as things stand")
    workers: list[PlannedWorker] = Field(description="those that are running now")
    missing: str | None = Field(description="what a job would wait for; null: a running worker takes it")
