"""A job as its page shows it, told by its events up to one number; the event stream goes on from there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from sqlalchemy.orm import Session

from publisher.api.job_log import Log
from publisher.api.jobs_schema import LogLine
from publisher.dashboard.charts import MOST_POINTS, Chart, Point, draw_all
from publisher.dashboard.job_stages import Step, steps_of
from publisher.dashboard.metrics import FORMS, PERPLEXITY_OF, metric_of
from publisher.jobs.progress import Progress, read_progress, stage_began
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage, planned_stages
from publisher.store import job_history
from publisher.store.metric_series import Series, SeriesPoint, Window, metric_series
from publisher.store.models import Job
from publisher.store.states import EventKind
from publisher.store.variant_content import Unreadable, recipe_of

#: the newest lines; its text has all of them
LOG_LINES = 200


@dataclass(frozen=True)
class PerplexityTable:
    """Of each form of the model, in the order of measuring: its perplexity on each of `corpora`."""

    corpora: list[str]
    rows: list[tuple[str, list[float | None]]]


@dataclass(frozen=True)
class Line:
    """A line of the log; `begins`: the stage that it is the first line of."""

    at: float
    message: str
    stage: str | None
    begins: str | None


@dataclass(frozen=True)
class ShownLog:
    """The newest `lines` of those that were asked for; `is_cut`: there are more."""

    lines: Sequence[Line]
    is_cut: bool


@dataclass(frozen=True)
class JobView:
    """Everything that events up to `last_seq` say."""

    last_seq: int
    steps: list[Step]
    progress: Progress | None
    charts: list[Chart]
    perplexity: PerplexityTable | None

    @property
    def large(self) -> list[Chart]:
        return [chart for chart in self.charts if not chart.metric.is_small]

    @property
    def small(self) -> list[Chart]:
        return [chart for chart in self.charts if chart.metric.is_small]


def read_view(session: Session, job: Job) -> JobView:
    """The view as of `job.event_seq`: rows that come meanwhile are left to the stream, none twice, none missing."""
    recipe, began = recipe_of(job.variant), stage_began(session, job)
    series = metric_series(session, job.id, job.event_seq, Window(MOST_POINTS))
    return JobView(
        last_seq=job.event_seq,
        steps=steps_of(job, began, skipped_stages(recipe)),
        progress=read_progress(session, job, began),
        charts=draw_charts(series, recipe, growing=not job.state.finished),
        perplexity=perplexity_table(series),
    )


def draw_charts(series: dict[str, Series], recipe: Recipe | Unreadable, *, growing: bool) -> list[Chart]:
    """What has been measured by step. What is told model by model is a table's, where its models are named."""
    named = any(name.startswith(PERPLEXITY_OF) for name in series)
    drawn = {
        name: _numbers(found.points)
        for name, found in series.items()
        if not name.startswith(PERPLEXITY_OF) and not (named and name == "perplexity")
    }
    totals = {name: metric_of(name).total(recipe) if isinstance(recipe, Recipe) else None for name in drawn}
    return draw_all(drawn, totals, growing=growing)


def perplexity_table(series: dict[str, Series]) -> PerplexityTable | None:
    """None if nothing was measured, or by a worker that did not say of what."""
    found: dict[str, dict[str, float | None]] = {}
    measured = {name: one.points[-1] for name, one in series.items() if name.startswith(PERPLEXITY_OF)}
    for name in sorted(measured, key=lambda name: measured[name].step):
        form, _, corpus = name.removeprefix(PERPLEXITY_OF).partition("/")
        found.setdefault(FORMS.get(form, form), {})[corpus] = measured[name].value
    if not found:
        return None
    corpora = list(dict.fromkeys(chain.from_iterable(found.values())))
    return PerplexityTable(corpora, [(form, [values.get(each) for each in corpora]) for form, values in found.items()])


def skipped_stages(recipe: Recipe | Unreadable) -> frozenset[str]:
    """Stages that this recipe leaves out; of one that cannot be read nothing is known."""
    if isinstance(recipe, Unreadable):
        return frozenset()
    return frozenset(Stage) - frozenset(planned_stages(recipe, publishes=True))


def _numbers(points: Iterable[SeriesPoint]) -> list[Point]:
    return [(point.step, point.value) for point in points if point.value is not None]


def newest_lines(session: Session, job: Job) -> ShownLog:
    """Of the whole log, up to the job's last event."""
    told = job_history.last_of_kind(session, job.id, EventKind.LOG, job.event_seq, LOG_LINES + 1)
    return _shown(list(map(LogLine.of, told)))


def found_lines(log: Log) -> ShownLog:
    """Of those that somebody looks for."""
    return _shown(list(deque(chain.from_iterable(log.batches()), LOG_LINES + 1)))


def _shown(found: Sequence[LogLine]) -> ShownLog:
    before: str | None = None
    lines = []
    for line in found:
        lines.append(Line(line.at, line.message, line.stage, line.stage if line.stage != before else None))
        before = line.stage
    return ShownLog(lines[-LOG_LINES:], len(lines) > LOG_LINES)
