"""A job's stages: where each stands, what it took beside what was expected, and the tries that it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy.orm import Session

from publisher.jobs.forecast import Span, StageSpans
from publisher.jobs.progress import Began
from publisher.jobs.shapes import read_needs
from publisher.plan.align import Machine
from publisher.plan.needs import StageNeeds
from publisher.recipe.stages import Stage
from publisher.store import job_history
from publisher.store.models import Job, JobAttempt
from publisher.store.states import JobState

STAGES = tuple(stage.value for stage in Stage)
#: tries that a page shows, the newest; the API has all of them
MOST_ATTEMPTS = 20


class StepState(StrEnum):
    """Where a stage stands: `started`, `finished` and `reused` come from events, the rest follows from the job."""

    WAITING = "waiting"
    STARTED = "started"
    FINISHED = "finished"
    REUSED = "reused"
    SKIPPED = "skipped"
    #: the job ended before it
    UNREACHED = "unreached"
    STOPPED = "stopped"
    FAILED = "failed"


#: what people read
WORDS = {StepState.STARTED: "running", StepState.FINISHED: "done", StepState.UNREACHED: "not reached"}


@dataclass(frozen=True)
class Step:
    """`at`: since when it runs, in seconds since 1970; `seconds` is None until the stage ended. `peaks`: bytes at the
    peak by kind of memory, `cpu` or `gpu`."""

    stage: str
    state: StepState
    seconds: float | None = None
    at: float = 0.0
    peaks: Mapping[str, int] | None = None

    @property
    def word(self) -> str:
        return WORDS.get(self.state, self.state.value)

    @property
    def took(self) -> float | None:
        """Of a stage that was made; what is reused took its seconds in another job."""
        return None if self.state is StepState.REUSED else self.seconds


def steps_of(job: Job, began: Began | None, skipped: frozenset[str]) -> list[Step]:
    """One step per stage. A job that is queued again starts over; what it can reuse, it will say."""
    stages = {} if job.state is JobState.QUEUED else job.stages
    return [_settle(_step(stage, stages.get(stage), began), job, stage in skipped) for stage in STAGES]


def _step(stage: str, said: Mapping[str, Any] | None, began: Began | None) -> Step:
    if said is None:
        return Step(stage, StepState.WAITING)
    at = began.at if began and began.stage == stage else 0.0
    return Step(stage, StepState(said["state"]), said.get("seconds"), at, said.get("peak_memory"))


def _settle(step: Step, job: Job, skipped: bool) -> Step:
    """What a step without a last word of its own means, now that the job is where it is."""
    if step.state is StepState.WAITING and (skipped or job.state is JobState.SUCCEEDED):
        return Step(step.stage, StepState.SKIPPED)
    if job.state is JobState.FAILED and step.stage == (job.failure or {}).get("stage"):
        return Step(step.stage, StepState.FAILED, step.seconds)
    if step.state is StepState.STARTED and (job.state.finished or job.state is JobState.PAUSED):
        return Step(step.stage, StepState.STOPPED, step.seconds)
    if step.state is StepState.WAITING and job.state.finished:
        return Step(step.stage, StepState.UNREACHED)
    return step


@dataclass(frozen=True)
class StageRow:
    """A line of the table of stages. `longest`: seconds that the bars of all lines are drawn against; `peak` and
    `planned`: bytes of memory, of the kind that was used."""

    step: Step
    seconds: float | None
    expected: Span | None
    longest: float
    peak: int | None
    planned: int | None

    @property
    def width(self) -> float:
        """Of its bar, in percent."""
        return round(100 * (self.seconds or 0.0) / self.longest, 2)

    @property
    def expected_at(self) -> float | None:
        """Where the bar was expected to end, in percent."""
        return None if self.expected is None else round(100 * self.expected.likely / self.longest, 2)


def stage_rows(job: Job, steps: Sequence[Step], expected: StageSpans, now: float) -> list[StageRow]:
    """Of the stages that this job has, or will have."""
    shown = [step for step in steps if step.state is not StepState.SKIPPED]
    seconds = {step.stage: now - step.at if step.at else step.took for step in shown}
    longest = max(
        [each for each in seconds.values() if each] + [span.likely for span in expected.values()], default=0.0
    )
    needs = read_needs(job.needs)
    of = needs.stages if needs else {}
    return [
        StageRow(
            step,
            seconds[step.stage],
            expected.get(step.stage),
            longest or 1.0,
            *_memory(step.peaks or {}, of.get(step.stage)),
        )
        for step in shown
    ]


def _memory(peaks: Mapping[str, int], needs: StageNeeds | None) -> tuple[int | None, int | None]:
    """At the peak, and as planned; of a GPU where one was used."""
    machine = Machine.GPU if peaks.get("gpu") else Machine.CPU
    return peaks.get(machine.value), (needs.on(machine) or None) if needs else None


@dataclass(frozen=True)
class Attempt:
    """A time that a worker had the job. `stages`: name, state and seconds of those that it came to."""

    number: int
    attempt: int
    worker: str
    started_at: float
    finished_at: float | None
    outcome: str | None
    failure: Mapping[str, Any] | None
    waiting: Mapping[str, Any] | None
    stages: list[Step]


def read_attempts(session: Session, job: Job) -> list[Attempt]:
    """Newest first."""
    return [_attempt(row, job) for row in job_history.attempts_before(session, job.id, None, MOST_ATTEMPTS)]


def _attempt(row: JobAttempt, job: Job) -> Attempt:
    # of one that runs, the job's row knows where it is
    stages = job.stages if row.last_event is None and row.number == job.lease_token else row.stages
    return Attempt(
        number=row.number,
        attempt=row.attempt,
        worker=row.worker,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outcome=row.outcome,
        failure=row.failure,
        waiting=row.waiting,
        stages=[_step(stage, stages[stage], None) for stage in STAGES if stage in stages],
    )
