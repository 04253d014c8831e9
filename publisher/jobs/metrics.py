"""Keeps the points of a job's series beside its events: the last report of each step, with its level."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, cast

from sqlalchemy import CompoundSelect, Table, bindparam, insert, select, union_all, update
from sqlalchemy.orm import Session

from publisher.store.metric_levels import TOP, Point, neighbourhood, set_levels
from publisher.store.models import MetricPoint
from publisher.store.states import EventKind

#: steps that are looked at together; a batch is rarely longer
SPAN = 1024

_KEY = ("job_id", "name", "step")

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


def _neighbours() -> CompoundSelect[Any]:
    """One part for each level: each is a range of the index."""
    points = MetricPoint.__table__.c
    mine = select(points.name, points.step, points.value, points.at, points.seq, points.level).where(
        points.job_id == bindparam("job_id"), points.name.in_(bindparam("names", expanding=True))
    )
    parts = []
    for level in range(TOP + 1):
        within = points.step.between(bindparam(f"first_{level}"), bindparam(f"last_{level}"))
        parts.append(mine.where(points.level == level, within))
    return union_all(*parts)


#: made once: with its parts it takes longer to build than to run
_NEIGHBOURS = _neighbours()


def _read(session: Session, job_id: str, names: Iterable[str], low: int, high: int) -> Series:
    values: dict[str, Any] = {"job_id": job_id, "names": sorted(names)}
    for level, first, last in neighbourhood(low, high):
        values |= {f"first_{level}": first, f"last_{level}": last}
    series: Series = {}
    for name, *columns in session.execute(_NEIGHBOURS, values):
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
    # by the table: as objects they take twice as long
    table = cast(Table, MetricPoint.__table__)
    if new:
        session.execute(insert(table), new)
    if old:
        found = [table.c[name] == bindparam(f"_{name}") for name in _KEY]
        values = [{f"_{name}" if name in _KEY else name: value for name, value in row.items()} for row in old]
        session.connection().execute(update(table).where(*found), values)
