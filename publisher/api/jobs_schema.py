"""Jobs in answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

from publisher.jobs.outlook import Outlook
from publisher.jobs.shapes import read_needs
from publisher.jobs.waiting import WaitKind
from publisher.plan.needs import Needs
from publisher.store import models as tables
from publisher.store.states import AttemptOutcome, JobState


class FailureAnswer(BaseModel):
    """Whether the request or the infrastructure is to blame, in which stage, and what to do."""

    blame: str = Field(description="request: another try will not help; or infrastructure")
    stage: str | None = Field(description="where it happened; null before the first")
    message: str = Field(description="what went wrong")
    way_out: str | None = Field(default=None, description="what to do about it")
    error_id: str | None = Field(
        default=None, description="of an error that nobody foresaw: by it the worker's log tells more"
    )


class WaitingAnswer(BaseModel):
    """What a job without a worker waits for besides its turn; no try is counted meanwhile."""

    kind: WaitKind = Field(description="what is waited for")
    message: str = Field(description="what is missing")
    stage: str | None = Field(description="where the job goes on")
    way_out: str | None = Field(description="what a person can do to end it sooner")
    since: float | None = Field(default=None, exclude=True)


class JobAnswer(BaseModel):
    """Times are seconds since 1970. `stages` maps a stage to its state and seconds."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="names the job in other calls")
    variant_id: str = Field(description="what it makes")
    state: JobState = Field(description="where it stands")
    stage: str | None = Field(description="the one that runs, or ran last")
    stages: dict[str, Any] = Field(
        description="stage → its state; seconds and peak_memory in bytes, or `at`, since when it runs"
    )
    attempt: int = Field(description="tries so far")
    worker: str | None = Field(description="who runs it, or ran it last")
    failure: FailureAnswer | None = Field(description="why it failed; null unless it did")
    waiting: WaitingAnswer | None = Field(description="what a job without a worker waits for besides its turn")
    waiting_since: float | None = Field(
        description="seconds since 1970: since when it waits for something, with pauses"
    )
    claimable_at: float = Field(description="a job without a worker is not taken before; 0 if at any time")
    priority: int = Field(description="higher is taken first, of equal the oldest")
    queue: str | None = Field(description="cpu for a job that computes nothing, or the GiB that it needs, rounded up")
    event_seq: int = Field(description="number of the last event")
    labels: dict[str, str] = Field(description="its variant's")
    created_at: float = Field(description="seconds since 1970")
    started_at: float | None = Field(description="seconds since 1970: its last start")
    finished_at: float | None = Field(description="seconds since 1970")
    cancel_requested_at: float | None = Field(description="seconds since 1970")
    pause_requested_at: float | None = Field(description="seconds since 1970; null: it is not to pause")

    @model_validator(mode="after")
    def _waits_since(self) -> Self:
        """For a worker, too, which spends no patience."""
        if self.waiting_since is None and self.waiting is not None:
            self.waiting_since = self.waiting.since
        return self

    @computed_field(description="somebody asked for its end when it had published already")  # type: ignore[prop-decorator]
    @property
    def cancel_came_too_late(self) -> bool:
        return self.state is JobState.SUCCEEDED and self.cancel_requested_at is not None


class JobDetail(JobAnswer):
    """One job, with what takes a look at the others. Times are seconds since 1970."""

    needs: Needs | None = Field(description="what a worker has to hold; null: nobody knows, each tries")
    queue_position: int | None = Field(
        description="1: next of the jobs that the same workers are for; null if it is not queued"
    )
    missing_worker: str | None = Field(
        description="why no worker that runs takes it: its place is that among those that wait for such a one; null if "
        "one does"
    )
    expected_start: float | None = Field(description="null where nothing is known")
    expected_end: float | None = Field(
        description="learnt from earlier jobs with this base model and recipe, or as planned, and of a running job by "
        "its own speed; null where neither is"
    )
    earliest_end: float | None = Field(
        description="of a running job, which hardly ends sooner; null where nothing is known"
    )
    latest_end: float | None = Field(
        description="of a running job, which hardly ends later; null where nothing is known"
    )

    @classmethod
    def seen(cls, row: tables.Job, ahead: Outlook) -> Self:
        """Of a row and what was found out about it."""
        answer = JobAnswer.model_validate(row)
        return cls(
            **dict(answer),
            needs=read_needs(row.needs),
            queue_position=ahead.position,
            missing_worker=ahead.missing,
            expected_start=ahead.start,
            expected_end=ahead.end,
            earliest_end=ahead.earliest,
            latest_end=ahead.latest,
        )


class AttemptAnswer(BaseModel):
    """A job in one worker's hands. Times are seconds since 1970; `stages` maps a stage to its state and seconds."""

    model_config = ConfigDict(from_attributes=True)

    number: int = Field(description="counts from 1 over all retries")
    attempt: int = Field(description="the try that it counts as; waiting, a pause and a worker's shutdown cost none")
    worker: str = Field(description="who had it")
    started_at: float = Field(description="seconds since 1970")
    finished_at: float | None = Field(description="seconds since 1970; null while it runs")
    outcome: AttemptOutcome | None = Field(description="null while it runs")
    failure: FailureAnswer | None = Field(description="why it failed; null unless it did")
    waiting: WaitingAnswer | None = Field(description="what it came to wait for")
    stages: dict[str, Any] = Field(
        description="stage → its state; seconds and peak_memory in bytes, or `at`, since when it runs"
    )
    first_event: int = Field(description="number of its first event")
    last_event: int = Field(description="number of its last event so far")

    @classmethod
    def of(cls, row: tables.JobAttempt, job: tables.Job) -> Self:
        """Of one that runs, the job's row knows where it is."""
        if row.last_event is None and row.number == job.lease_token:
            row.stages, row.last_event = job.stages, job.event_seq
        return cls.model_validate(row)


class AttemptPage(BaseModel):
    """Newest first."""

    items: list[AttemptAnswer] = Field(description="those of this page")
    next_cursor: int | None = Field(description="give it as ?cursor= to get the next page; null on the last")


class LogLine(BaseModel):
    """A line of a job's log."""

    seq: int = Field(description="number of its event")
    at: float = Field(description="seconds since 1970")
    stage: str | None = Field(description="null: of no stage, or written by an older version")
    message: str = Field(description="a sentence for people")

    @classmethod
    def of(cls, event: tables.JobEvent) -> Self:
        return cls(seq=event.seq, at=event.at, stage=event.data.get("stage"), message=event.data["message"])

    def __str__(self) -> str:
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        return f"{at.replace('+00:00', 'Z')} [{self.stage or '-'}] {self.message}\n"


class LogPage(BaseModel):
    """Oldest first."""

    items: list[LogLine] = Field(description="those of this page")
    next_cursor: int | None = Field(description="give it as ?cursor= to get the next page; null on the last")


class MetricPoint(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    step: int = Field(description="rises within a series")
    value: float | None = Field(description="null where it was not a number")
    at: float = Field(description="seconds since 1970")


class JobMetrics(BaseModel):
    """`series` maps a name (loss, learning_rate, tokens_per_second, perplexity, …) to points by rising step.

    Perplexity is also told by form of the model and corpus, as `perplexity/base/novel`. A longer series is thinned: its
    first and last point stay, and the lowest and highest of every stretch between.
    """

    series: dict[str, list[MetricPoint]] = Field(description="name → points by rising step")
    thinned: list[str] = Field(description="names of the series that have more points than are here")
