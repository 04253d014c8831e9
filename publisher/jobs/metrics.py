"""Keeps the points of a job's series beside its events: the last report of each step, with its level."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from sqlalchemy import insert, literal, select, union_all, update
from sqlalchemy.orm import Session

from publisher.store.metric_levels import Point, neighbourhood, set_levels
from publisher.store.models import MetricPoint
from publisher.store.states import EventKind

#: steps that are looked at together; a batch is rarely longer
SPAN = 1024

Series = dict[str, dict[int, Point]]


def keep(session: Session, job_id: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the points that these events (columns of JobEvent) report. The job's row must be locked by the caller."""
    reported = list(_reported(rows))
    for _, some in groupby(sorted(reported, key=_span), _span):
        _keep_span(session, job_id, list(some))


def _reported(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Point]]:
    for row in rows:
        if row["kind"] == EventKind.METRIC:
            data = row["data"]
            yield data["name"], Point(data["step"], data["value"], row["at"], row["seq"])


def _span(reported: tuple[str, Point]) -> int:
    return reported[1].step // SPAN


def _keep_span(session: Session, job_id: str, reported: Collection[tuple[str, Point]]) -> None:
    """In the order of their numbers: of two reports of a step the last counts."""
    steps = [point.step for _, point in reported]
    series = _read(session, job_id, {name for name, _ in reported}, min(steps), max(steps))
    before = {(name, point.step): point.level for name, points in series.items() for point in points.values()}
    changed: dict[str, set[int]] = {}
    for name, point in reported:
        series.setdefault(name, {})[point.step] = point
        changed.setdefault(name, set()).add(point.step)
    for name, touched in changed.items():
        set_levels(series[name].values(), touched)
    _write(session, job_id, series, before, changed)


def _read(session: Session, job_id: str, names: Iterable[str], low: int, high: int) -> Series:
    points = MetricPoint.__table__.c
    mine = select(points.name, points.step, points.value, points.at, points.seq, points.level).where(
        points.job_id == job_id, points.name.in_(sorted(names))
    )
    # one part for each level: each is a range of the index
    parts = [
        mine.where(points.level == level, points.step.between(literal(first), literal(last)))
        for level, first, last in neighbourhood(low, high)
    ]
    series: Series = {}
    for name, *columns in session.execute(union_all(*parts)):
        point = Point(*columns)
        series.setdefault(name, {})[point.step] = point
    return series


def _write(
    session: Session,
    job_id: str,
    series: Series,
    before: Mapping[tuple[str, int], int],
    changed: Mapping[str, Collection[int]],
) -> None:
    new: list[dict[str, Any]] = []
    old: list[dict[str, Any]] = []
    for name, points in series.items():
        for step, point in points.items():
            if step in changed[name] or before[name, step] != point.level:
                (old if (name, step) in before else new).append({"job_id": job_id, "name": name, **vars(point)})
    if new:
        session.execute(insert(MetricPoint), new)
    if old:
        session.execute(update(MetricPoint), old)
