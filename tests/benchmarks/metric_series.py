"""A long job's series: from the points that are kept for it, beside all of them taken apart from its events.

    python -m tests.benchmarks.metric_series [--events 80000] [--runs 5] [--database URL]

"events" is what the service did before: every metric event, by the database's own JSON functions, as an answer of the
API. "points" is what it does. Both answer the same job in one run, over SQLite in a temporary folder or the database
that is named; medians count, and one read of each goes before untimed. What keeping the points adds to writing events
is measured, too: batches of one second of a fast job, with and without.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high
from unittest.mock import patch

from sqlalchemy import select

from publisher.api.jobs_schema import JobMetrics, MetricPoint
from publisher.jobs import events, metrics
from publisher.jobs.events import NewEvent
from publisher.jobs.leases import Lease
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.metric_series import SeriesPoint, metric_series
from publisher.store.models import JobEvent
from publisher.store.states import EventKind
from tests.jobs import rows

NAMES = ("loss", "learning_rate", "tokens_per_second", "gradient_norm")
#: steps in a second of a fast job
BATCH = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=80_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--database")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = options.database or f"sqlite:///{Path(folder) / 'bench.db'}"
        migrate.upgrade(url)
        database = Database(url)
        lease = rows.claim(database, rows.add_job(database), seconds=36_000)
        steps = options.events // len(NAMES)
        with_points = write(database, lease, steps)
        other = rows.claim(database, rows.add_job(database), seconds=36_000)
        with patch.object(metrics, "keep", lambda *_: None):
            without = write(database, other, steps)
        print(f"a batch of {BATCH * len(NAMES)} is written in {without} without points, {with_points} with")
        sides = {
            "events": lambda: from_events(database, lease.job_id),
            "points": lambda: answer(database, lease.job_id),
        }
        for name, side in sides.items():
            took, size = timed(side, options.runs)
            print(f"{options.events:,} events, {name}: {took}, {size / 1024:,.0f} KiB", flush=True)
        database.close()


@dataclass(frozen=True, order=True)
class Cost:
    """`cpu` is this process's own, SQLite's work included: what counts on a machine that others use, too. Seconds."""

    cpu: float
    wall: float

    def __str__(self) -> str:
        return f"{1000 * self.wall:.1f} ms ({1000 * self.cpu:.1f} of CPU)"


@contextmanager
def noted(costs: list[Cost]) -> Iterator[None]:
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    costs.append(Cost(time.process_time() - cpu, time.perf_counter() - wall))


def write(database: Database, lease: Lease, steps: int) -> Cost:
    """Of one batch, the median of all."""
    costs: list[Cost] = []
    for first in range(0, steps, BATCH):
        told = [
            NewEvent(EventKind.METRIC, {"name": name, "step": step, "value": random.random()})
            for step in range(first, min(first + BATCH, steps))
            for name in NAMES
        ]
        with noted(costs), database.write() as session:
            events.append(session, lease.job_id, lease.token, told)
    return median_high(costs)


def timed(side: Callable[[], bytes], runs: int) -> tuple[Cost, int]:
    """The median, and bytes of the answer."""
    size = len(side())
    costs: list[Cost] = []
    for _ in range(runs):
        with noted(costs):
            side()
    return median_high(costs), size


def answer(database: Database, job_id: str) -> bytes:
    with database.read() as session:
        found = metric_series(session, job_id, 10**9)
    series = {name: [MetricPoint.model_validate(point) for point in one.points] for name, one in found.items()}
    thinned = [name for name, one in found.items() if one.is_thinned]
    return JobMetrics(series=series, thinned=thinned).model_dump_json().encode()


def from_events(database: Database, job_id: str) -> bytes:
    data = JobEvent.data
    columns = data["name"].as_string(), data["step"].as_integer(), data["value"].as_float(), JobEvent.at
    wanted = JobEvent.job_id == job_id, JobEvent.kind == EventKind.METRIC
    series: dict[str, dict[int, SeriesPoint]] = {}
    with database.read() as session:
        for name, step, value, at in session.execute(select(*columns).where(*wanted).order_by(JobEvent.seq)):
            series.setdefault(name, {})[step] = SeriesPoint(step, value, at)
    whole = {name: [points[step] for step in sorted(points)] for name, points in series.items()}
    return JobMetrics.model_validate({"series": whole, "thinned": []}).model_dump_json().encode()


if __name__ == "__main__":
    main()
