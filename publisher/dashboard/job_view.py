"""A job as its page shows it, told by its events up to one number; the event stream goes on from there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.orm import Session

from publisher.dashboard.charts import MOST_POINTS, Chart, Point, draw
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage, planned_stages
from publisher.store import job_history
from publisher.store.metric_series import SeriesPoint, Window, metric_series
from publisher.store.models import Job, JobEvent
from publisher.store.states import EventKind, JobState
from publisher.store.variant_content import Unreadable, recipe_of

STAGES = tuple(stage.value for stage in Stage)
#: the newest lines; the API has all of them
LOG_LINES = 200


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
    """`seq` and `at` are the event's that said so; `seconds` is None until the stage ended."""

    stage: str
    state: StepState
    seconds: float | None = None
    seq: int = 0
    at: float = 0.0

    @property
    def word(self) -> str:
        return WORDS.get(self.state, self.state.value)


@dataclass(frozen=True)
class Progress:
    """Of the running stage. `first_done` and `first_at` are of its first report in this unit: the speed counts from
    there."""

    stage: str
    done: float
    total: float
    unit: str
    at: float
    first_done: float
    first_at: float

    @property
    def percent(self) -> float:
        return min(100.0, 100 * self.done / self.total) if self.total else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds to the end of the stage at the speed so far; None while that is unknown."""
        done, passed = self.done - self.first_done, self.at - self.first_at
        return (self.total - self.done) * passed / done if done > 0 and passed > 0 else None


@dataclass(frozen=True)
class JobView:
    """Everything that events up to `last_seq` say."""

    last_seq: int
    steps: list[Step]
    progress: Progress | None
    charts: list[Chart]
    log: Sequence[JobEvent]

    @property
    def log_is_cut(self) -> bool:
        return len(self.log) == LOG_LINES


def read_view(session: Session, job: Job) -> JobView:
    """The view as of `job.event_seq`: rows that come meanwhile are left to the stream, none twice, none missing."""
    until = job.event_seq
    told = job_history.of_kinds(session, job.id, [EventKind.STATE, EventKind.STAGE], until)
    steps = fold_steps(told, job, skipped_stages(recipe_of(job.variant)))
    running = next((step.stage for step in steps if step.state is StepState.STARTED), None)
    series = metric_series(session, job.id, until, Window(MOST_POINTS))
    growing = not job.state.finished
    drawn = [draw(name, _numbers(series[name].points), growing=growing) for name in sorted(series, key=_loss_first)]
    return JobView(
        last_seq=until,
        steps=steps,
        progress=read_progress(session, job, running) if running else None,
        charts=[chart for chart in drawn if chart is not None],
        log=job_history.last_of_kind(session, job.id, EventKind.LOG, until, LOG_LINES),
    )


def fold_steps(events: Iterable[JobEvent], job: Job, skipped: frozenset[str]) -> list[Step]:
    """One step per stage. A job that is queued again starts over; what it can reuse, it will say."""
    known: dict[str, Step] = {}
    for event in events:
        if event.kind == EventKind.STAGE:
            known[event.data["stage"]] = _step(event)
        elif event.data["state"] == JobState.QUEUED:
            known = {}
    return [_settle(known.get(stage, Step(stage, StepState.WAITING)), job, stage in skipped) for stage in STAGES]


def _step(event: JobEvent) -> Step:
    state = StepState(event.data["state"])
    return Step(event.data["stage"], state, event.data.get("seconds"), event.seq, event.at)


def _settle(step: Step, job: Job, skipped: bool) -> Step:
    """What a step without a last word of its own means, now that the job is where it is."""
    if step.state is StepState.WAITING and (skipped or job.state is JobState.SUCCEEDED):
        return Step(step.stage, StepState.SKIPPED)
    if job.state is JobState.FAILED and step.stage == (job.failure or {}).get("stage"):
        return Step(step.stage, StepState.FAILED, step.seconds, step.seq, step.at)
    if step.state is StepState.STARTED and (job.state.finished or job.state is JobState.PAUSED):
        return Step(step.stage, StepState.STOPPED, step.seconds, step.seq, step.at)
    if step.state is StepState.WAITING and job.state.finished:
        return Step(step.stage, StepState.UNREACHED)
    return step


def skipped_stages(recipe: Recipe | Unreadable) -> frozenset[str]:
    """Stages that this recipe leaves out; of one that cannot be read nothing is known."""
    if isinstance(recipe, Unreadable):
        return frozenset()
    return frozenset(Stage) - frozenset(planned_stages(recipe, publishes=True))


def _loss_first(name: str) -> tuple[bool, str]:
    return name != "loss", name


def _numbers(points: Iterable[SeriesPoint]) -> list[Point]:
    return [(point.step, point.value) for point in points if point.value is not None]


def read_progress(session: Session, job: Job, stage: str | None) -> Progress | None:
    """The last report of `stage` in the current try; None if it has not reported yet."""
    told = job_history.last_of_kind(session, job.id, EventKind.PROGRESS, job.event_seq, 1)
    started = job_history.last_of_kind(session, job.id, EventKind.STAGE, job.event_seq, 1)
    if not told or not started or told[0].seq < started[0].seq or told[0].data["stage"] != stage:
        return None
    data = told[0].data
    first = job_history.first_progress_after(session, job.id, data["unit"], started[0].seq, job.event_seq)
    assert first is not None
    return Progress(
        stage=data["stage"],
        done=data["done"],
        total=data["total"],
        unit=data["unit"],
        at=told[0].at,
        first_done=first.data["done"],
        first_at=first.at,
    )
