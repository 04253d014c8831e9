"""The states of a job, the kinds of its events, and the states of a webhook's deliveries."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        return self in {JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED}


#: A worker holds the lease.
ACTIVE = (JobState.RUNNING, JobState.PAUSING, JobState.CANCELLING)


class AttemptOutcome(StrEnum):
    """How a job left a worker's hands: `released` when the worker shut down, `waiting` for what is not there yet."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    RELEASED = "released"
    WAITING = "waiting"


class EventKind(StrEnum):
    """`state` {state, attempt, failure?, waiting?}; `stage` {stage, state: started|finished|reused, seconds?,
    peak_memory?: bytes by cpu or gpu}; `progress` {stage, done, total, unit}; `metric` {name, step, value};
    `log` {message, stage}."""

    STATE = "state"
    STAGE = "stage"
    PROGRESS = "progress"
    METRIC = "metric"
    LOG = "log"


class DeliveryState(StrEnum):
    """`failed`: given up, until somebody asks for it again."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
