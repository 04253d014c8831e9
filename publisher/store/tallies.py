"""Counters and histograms of the installation that outlive processes and deleted jobs, kept in the database.

They are counted in the transaction of what they count, by whichever process makes it, and only ever grow: rows of jobs,
which people delete, would make a counter fall, and Prometheus takes a fall for a restart. Each observation is a row of
its own, so that nobody waits for another's; the reaper merges them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from publisher.store.models import Tally

#: rows that are merged at once, and how many have to be there for it
BATCH, ENOUGH = 5000, 500


@dataclass(frozen=True)
class Series:
    """`labels` by name, `bounds` of a histogram's buckets, ascending, without the last one, which has none."""

    name: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Part:
    """Of a series: the observations of these values of its labels whose bucket this is; None has no bound."""

    name: str
    labels: tuple[str, ...]
    bucket: float | None
    count: int
    total: float


_GIB = 2**30
ATTEMPTS = Series("job_attempts", ("outcome", "stage", "blame"))
PUBLICATIONS = Series("publications", ("outcome",))
LEASES_EXPIRED = Series("lease_expiries", ("queue",))
#: from a second to a week
STAGE_SECONDS = Series(
    "stage_seconds", ("stage",), (1, 5, 15, 60, 300, 900, 3600, 3 * 3600, 12 * 3600, 86400, 3 * 86400, 7 * 86400)
)
STAGE_MEMORY = Series("stage_peak_memory", ("stage", "memory"), tuple(_GIB * 2.0**power for power in range(-1, 10)))


@dataclass(frozen=True)
class Observation:
    """One value of a histogram, made outside of a transaction."""

    series: Series
    labels: tuple[str, ...]
    value: float


def count(session: Session, series: Series, *labels: str) -> None:
    """One more, when the transaction commits."""
    _add(session, [_row(series, labels, None, 1, 1.0)])


def observe(session: Session, observations: Sequence[Observation]) -> None:
    """These values, when the transaction commits."""
    _add(session, [_observed(each) for each in observations])


def read(session: Session) -> list[Part]:
    """Everything that was counted so far."""
    sums = select(Tally.name, Tally.labels, Tally.bucket, func.sum(Tally.count), func.sum(Tally.total))
    rows = session.execute(sums.group_by(Tally.name, Tally.labels, Tally.bucket)).all()
    return [Part(name, tuple(json.loads(labels)), bucket, int(n), total) for name, labels, bucket, n, total in rows]


def merge(session: Session) -> None:
    """Make few rows of many that say the same."""
    if (session.scalar(select(func.count()).select_from(Tally)) or 0) < ENOUGH:
        return
    oldest = select(Tally).order_by(Tally.id).limit(BATCH).with_for_update(skip_locked=True)
    rows = list(session.scalars(oldest))
    sums: dict[tuple[str, str, float | None], tuple[int, float]] = {}
    for row in rows:
        number, total = sums.get((row.name, row.labels, row.bucket), (0, 0.0))
        sums[row.name, row.labels, row.bucket] = (number + row.count, total + row.total)
    if len(sums) * 2 > len(rows):
        return
    session.execute(
        delete(Tally).where(Tally.id.in_([row.id for row in rows])).execution_options(synchronize_session=False)
    )
    _add(
        session,
        [
            {"name": name, "labels": labels, "bucket": bucket, "count": number, "total": total}
            for (name, labels, bucket), (number, total) in sums.items()
        ],
    )


def _observed(each: Observation) -> dict[str, object]:
    bucket = next((bound for bound in each.series.bounds if each.value <= bound), None)
    return _row(each.series, each.labels, bucket, 1, each.value)


def _row(series: Series, labels: tuple[str, ...], bucket: float | None, number: int, total: float) -> dict[str, object]:
    assert len(labels) == len(series.labels), f"{series.name} has the labels {series.labels}"
    return {
        **{"name": series.name, "labels": json.dumps(labels), "bucket": bucket},
        **{"count": number, "total": total},
    }


def _add(session: Session, rows: Sequence[dict[str, object]]) -> None:
    if rows:
        session.execute(insert(Tally), rows)
