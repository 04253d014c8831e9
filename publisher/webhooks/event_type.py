"""What one type of event declares: its name, words for people, what is told of it, and when it arises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from publisher.store.states import JobState


@dataclass(frozen=True)
class StateChange:
    """A job came into a state, or says something new in it. `told`: the data of its `state` event
    (publisher.store.states.EventKind); `seq`: the event's number within the job; `at`: seconds since 1970."""

    job_id: str
    seq: int
    at: float
    told: Mapping[str, Any]
    variant: VariantRow

    @property
    def state(self) -> JobState:
        return JobState(self.told["state"])


@dataclass(frozen=True)
class VariantRow:
    """What is told of the variant that a job makes, as it is when the transaction ends."""

    id: str
    base_model_id: str
    publish_repo_id: str
    publish_private: bool
    sweep_id: str | None
    labels: Mapping[str, str]
    publication: Mapping[str, Any] | None


class EventData(BaseModel):
    """Of every event about a variant or a job that makes one."""

    job_id: str = Field(description="the job; GET /v1/jobs/{id} tells more")
    variant_id: str = Field(description="what it makes")
    base_model_id: str = Field(description="what that is made from")
    repo_id: str = Field(description="the repository that it goes to")
    sweep_id: str | None = Field(description="the sweep that it was made in; null: none")
    labels: dict[str, str] = Field(description="of the variant")
    seq: int = Field(description="number of the job's event: deliveries may overtake each other, these rise")

    @staticmethod
    def subject(change: StateChange) -> dict[str, Any]:
        """These fields."""
        variant = change.variant
        return {
            "job_id": change.job_id,
            "variant_id": variant.id,
            "base_model_id": variant.base_model_id,
            "repo_id": variant.publish_repo_id,
            "sweep_id": variant.sweep_id,
            "labels": dict(variant.labels),
            "seq": change.seq,
        }


@dataclass(frozen=True)
class EventType:
    """`name` is what receivers know it by, in the manner of Standard Webhooks; `words` say when it comes. `arises`
    gives its data where a change of a job's state is such an event, else None; an event without it is sent on demand
    alone, whatever a webhook has subscribed to."""

    name: str
    words: str
    data: type[BaseModel]
    arises: Callable[[StateChange], BaseModel | None] | None
