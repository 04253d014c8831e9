"""What a job measured, as series of at most so many points: real ones, with the ends and every bucket's extremes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from publisher.store.metric_levels import FAN, TOP, extremes
from publisher.store.models import MetricPoint

#: what a chart some 400 pixels wide can show
POINTS = 500
#: the ends, and the extremes of one bucket
FEWEST_POINTS, MOST_POINTS = 4, 20_000


class SeriesPoint(NamedTuple):
    """`value` is None where it was not a number, `at` seconds since 1970."""

    step: int
    value: float | None
    at: float


@dataclass(frozen=True)
class Window:
    """At most `points` a series; only these names, and steps from `first` to `last`, if they are given."""

    points: int = POINTS
    names: Collection[str] = ()
    first: int | None = None
    last: int | None = None


class Series(NamedTuple):
    """By rising step; `is_thinned` where there are more points than these."""

    points: list[SeriesPoint]
    is_thinned: bool


def metric_series(session: Session, job_id: str, until: int, window: Window = Window()) -> dict[str, Series]:
    """Metric name → what events with a number up to `until` report.

    A stage that ran again reported its steps again: the last report counts. A step that was reported again after
    `until` is left out.
    """
    wanted = window.names
    names = [name for name in _names(session, job_id) if not wanted or name in wanted]
    found = {name: _one(session, _conditions(job_id, name, until, window), window.points) for name in names}
    return {name: series for name, series in found.items() if series.points}


def _names(session: Session, job_id: str) -> Iterator[str]:
    """One look into the index for each, however many points it has."""
    mine = select(func.min(MetricPoint.name)).where(MetricPoint.job_id == job_id)
    name = session.scalar(mine)
    while name is not None:
        yield name
        name = session.scalar(mine.where(MetricPoint.name > name))


def _conditions(job_id: str, name: str, until: int, window: Window) -> list[ColumnElement[bool]]:
    conditions = [MetricPoint.job_id == job_id, MetricPoint.name == name, MetricPoint.seq <= until]
    if window.first is not None:
        conditions.append(MetricPoint.step >= window.first)
    if window.last is not None:
        conditions.append(MetricPoint.step <= window.last)
    return conditions


def _one(session: Session, conditions: Sequence[ColumnElement[bool]], most: int) -> Series:
    """Read by the lowest level that has not too many points, then thinned to the number that is wanted."""
    level = _level(session, conditions, FAN * most)
    columns = select(MetricPoint.step, MetricPoint.value, MetricPoint.at).where(*conditions)
    chosen = columns.where(MetricPoint.level >= level).order_by(MetricPoint.step)
    points = [SeriesPoint(*row) for row in session.execute(chosen)]
    if level:
        points = _with_ends(session, columns, points)
    thinned = thin(points, most)
    return Series(thinned, is_thinned=level > 0 or len(thinned) < len(points))


def _level(session: Session, conditions: Sequence[ColumnElement[bool]], most: int) -> int:
    ranked = select(MetricPoint.level).where(*conditions).order_by(MetricPoint.level.desc())
    first_too_many = session.scalar(ranked.offset(most).limit(1))
    return 0 if first_too_many is None else min(first_too_many + 1, TOP)


def _with_ends(
    session: Session, columns: Select[int, float | None, float], points: list[SeriesPoint]
) -> list[SeriesPoint]:
    ends = [
        SeriesPoint(*row)
        for order in (MetricPoint.step, MetricPoint.step.desc())
        for row in session.execute(columns.order_by(order).limit(1))
    ]
    return sorted({point.step: point for point in [*points, *ends]}.values())


def thin(points: Sequence[SeriesPoint], most: int) -> list[SeriesPoint]:
    """At most `most`: both ends, and the lowest and the highest of each bucket between, so that no spike is lost."""
    if len(points) <= most:
        return list(points)
    return [points[0], *_extremes(points[1:-1], (most - 2) // 2), points[-1]]


def _extremes(points: Sequence[SeriesPoint], buckets: int) -> Iterator[SeriesPoint]:
    ends = [len(points) * number // buckets for number in range(buckets + 1)]
    for start, end in pairwise(ends):
        yield from sorted(set(extremes(points[start:end])), key=lambda point: point.step)
