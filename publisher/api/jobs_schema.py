"""Jobs in answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, computed_field

from publisher.jobs.waiting import WaitKind
from publisher.store.states import JobState


class FailureAnswer(BaseModel):
    """Whether the request or the infrastructure is to blame, in which stage, and what to do."""

    blame: str
    stage: str | None
    message: str
    way_out: str | None = None


class WaitingAnswer(BaseModel):
    """What a job without a worker waits for besides its turn; no try is counted meanwhile."""

    kind: WaitKind
    message: str = Field(description="what is missing")
    stage: str | None = Field(description="where the job goes on")
    way_out: str | None = Field(description="what a person can do to end it sooner")


class JobAnswer(BaseModel):
    """Times are seconds since 1970. `stages` maps a stage to its state and seconds."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    variant_id: str
    state: JobState
    stage: str | None = Field(description="the one that runs, or ran last")
    stages: dict[str, Any]
    attempt: int = Field(description="tries so far")
    worker: str | None
    failure: FailureAnswer | None
    waiting: WaitingAnswer | None = Field(description="what a job without a worker waits for besides its turn")
    waiting_since: float | None
    claimable_at: float = Field(description="a job without a worker is not taken before; 0 if at any time")
    event_seq: int = Field(description="number of the last event")
    created_at: float
    started_at: float | None
    finished_at: float | None
    cancel_requested_at: float | None

    @computed_field(description="somebody asked for its end when it had published already")  # type: ignore[prop-decorator]
    @property
    def cancel_came_too_late(self) -> bool:
        return self.state is JobState.SUCCEEDED and self.cancel_requested_at is not None


class MetricPoint(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    step: int
    value: float | None = Field(description="null where it was not a number")
    at: float = Field(description="seconds since 1970")


class JobMetrics(BaseModel):
    """`series` maps a name (loss, learning_rate, tokens_per_second, perplexity, …) to points by rising step."""

    series: dict[str, list[MetricPoint]]
