"""Jobs in answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from publisher.jobs.waiting import WaitKind
from publisher.store.states import JobState


class FailureAnswer(BaseModel):
    """Whether the request or the infrastructure is to blame, in which stage, and what to do."""

    blame: str = Field(description="request: another try will not help; or infrastructure")
    stage: str | None = Field(description="where it happened; null before the first")
    message: str = Field(description="what went wrong")
    way_out: str | None = Field(default=None, description="what to do about it")


class WaitingAnswer(BaseModel):
    """What a queued job waits for besides its turn; no try is counted meanwhile."""

    kind: WaitKind = Field(description="what is waited for")
    message: str = Field(description="what is missing")
    stage: str | None = Field(description="where the job goes on")
    way_out: str | None = Field(description="what a person can do to end it sooner")


class JobAnswer(BaseModel):
    """Times are seconds since 1970. `stages` maps a stage to its state and seconds."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="names the job in other calls")
    variant_id: str = Field(description="what it makes")
    state: JobState = Field(description="where it stands")
    stage: str | None = Field(description="the one that runs, or ran last")
    stages: dict[str, Any] = Field(description="stage → its state and seconds")
    attempt: int = Field(description="tries so far")
    worker: str | None = Field(description="who runs it, or ran it last")
    failure: FailureAnswer | None = Field(description="why it failed; null unless it did")
    waiting: WaitingAnswer | None = Field(description="what a queued job waits for besides its turn")
    waiting_since: float | None = Field(
        description="seconds since 1970: since when it waits for something, with pauses"
    )
    claimable_at: float = Field(description="a queued job is not taken before; 0 if at any time")
    event_seq: int = Field(description="number of the last event")
    created_at: float = Field(description="seconds since 1970")
    started_at: float | None = Field(description="seconds since 1970: its last start")
    finished_at: float | None = Field(description="seconds since 1970")
    cancel_requested_at: float | None = Field(description="seconds since 1970")


class MetricPoint(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    step: int = Field(description="rises within a series")
    value: float | None = Field(description="null where it was not a number")
    at: float = Field(description="seconds since 1970")


class JobMetrics(BaseModel):
    """`series` maps a name (loss, learning_rate, tokens_per_second, perplexity, …) to points by rising step."""

    series: dict[str, list[MetricPoint]] = Field(description="name → points by rising step")
