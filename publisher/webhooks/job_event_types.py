"""Events of jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, Field

from publisher.store.states import JobState
from publisher.webhooks.event_type import EventData, EventType, StateChange


class JobData(EventData):
    state: JobState = Field(description="where the job stands")
    attempt: int = Field(description="tries so far")


class FailedJobData(JobData):
    failure: dict[str, Any] = Field(description="as in GET /v1/jobs/{id}: blame, stage, message, way_out")


class WaitingJobData(JobData):
    waiting: dict[str, Any] = Field(description="as in GET /v1/jobs/{id}: kind, message, stage, way_out")


def _in_state(
    state: JobState, data: type[JobData], *, with_: str | None = None, without: tuple[str, ...] = ()
) -> Callable[[StateChange], BaseModel | None]:
    """Of changes into this state that tell of `with_` and of nothing in `without`."""

    def arises(change: StateChange) -> BaseModel | None:
        told = change.told
        if change.state is not state or (with_ and with_ not in told) or any(name in told for name in without):
            return None
        more = {with_: told[with_]} if with_ else {}
        return data(**EventData.subject(change), state=state, attempt=told["attempt"], **more)

    return arises


JOB_QUEUED = EventType(
    "job.queued",
    "A job waits for its turn: it is new, was retried or resumed by a person, or its worker shut down.",
    JobData,
    _in_state(JobState.QUEUED, JobData, without=("failure", "waiting")),
)
JOB_STARTED = EventType(
    "job.started", "A worker has taken the job; once for each try.", JobData, _in_state(JobState.RUNNING, JobData)
)
JOB_RETRYING = EventType(
    "job.retrying",
    "A try failed, and there will be another.",
    FailedJobData,
    _in_state(JobState.QUEUED, FailedJobData, with_="failure"),
)
JOB_WAITING = EventType(
    "job.waiting",
    "The job waits for a Hub, a credential, disk space or a worker that fits; again with each look for it, which come "
    "ever more rarely, 5 minutes apart at last.",
    WaitingJobData,
    _in_state(JobState.QUEUED, WaitingJobData, with_="waiting", without=("failure",)),
)
JOB_PAUSED = EventType(
    "job.paused", "The job has stopped, with its state saved.", JobData, _in_state(JobState.PAUSED, JobData)
)
JOB_CANCELLED = EventType(
    "job.cancelled",
    "The job was cancelled and has published nothing.",
    JobData,
    _in_state(JobState.CANCELLED, JobData),
)
JOB_SUCCEEDED = EventType(
    "job.succeeded",
    "The job has ended, and what it made is published.",
    JobData,
    _in_state(JobState.SUCCEEDED, JobData),
)
JOB_FAILED = EventType(
    "job.failed",
    "The job has ended and will not be tried again by itself.",
    FailedJobData,
    _in_state(JobState.FAILED, FailedJobData, with_="failure"),
)
