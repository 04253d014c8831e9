"""Series as last reported, thinned to real points without losing an end or a spike, whatever was reported again."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from migrations.versions import r0008_event_numbers as migration
from publisher.jobs import events
from publisher.jobs.events import NewEvent
from publisher.store.database import Database
from publisher.store.metric_series import SeriesPoint, Window, metric_series, thin
from publisher.store.models import MetricPoint
from tests.jobs.rows import add_job, claim, metric, report


def series(database: Database, job_id: str, window: Window = Window(), until: int = 10**9) -> dict[str, list[int]]:
    """Name → steps."""
    with database.read() as session:
        found = metric_series(session, job_id, until, window)
    return {name: [point.step for point in one.points] for name, one in found.items()}


def test_series_rise_by_step_and_hold_each_step_as_last_reported(database: Database) -> None:
    job_id = report(
        database,
        metric("loss", 20, 3.0, at=1.0),
        metric("loss", 3, 2.5, at=2.0),
        metric("perplexity", 0, 1e300, at=3.0),
        metric("loss", 20, None, at=4.0),
    )
    with database.read() as session:
        found = metric_series(session, job_id, 100)
    assert {name: one.points for name, one in found.items()} == {
        "loss": [SeriesPoint(3, 2.5, 2.0), SeriesPoint(20, None, 4.0)],
        "perplexity": [SeriesPoint(0, 1e300, 3.0)],
    }
    assert not any(one.is_thinned for one in found.values())


def test_series_end_at_the_number_that_is_asked_for(database: Database) -> None:
    job_id = report(database, metric("loss", 1, 3.0), metric("loss", 2, 1.0), metric("speed", 1, 2.0))
    assert [series(database, job_id, until=until) for until in (2, 3, 4)] == [{}, {"loss": [1]}, {"loss": [1, 2]}]


def test_no_series_holds_another_jobs_points(database: Database) -> None:
    mine, other = report(database, metric("loss", 1, 1.0)), report(database, metric("loss", 2, 2.0))
    assert series(database, mine) == {"loss": [1]}
    assert series(database, other) == {"loss": [2]}


def test_a_window_has_the_names_and_steps_that_are_asked_for(database: Database) -> None:
    job_id = report(database, *[metric(name, step, 1.0) for name in ("loss", "lr", "speed") for step in range(9)])
    window = Window(names=["speed", "loss", "unknown"], first=3, last=5)
    assert series(database, job_id, window) == {"loss": [3, 4, 5], "speed": [3, 4, 5]}


def written(database: Database, random: Random) -> tuple[str, dict[int, float | None]]:
    """A job whose one series grew in batches, some of them over steps that were there, as a stage that ran again makes
    them, with gaps and values that are no numbers; and what it reported last of each step."""
    job_id = add_job(database)
    lease = claim(database, job_id)
    known: dict[int, float | None] = {}
    step = 0
    for _ in range(60):
        step = max(0, step - 300) if random.random() < 0.2 else step + random.choice([0, 0, 0, 5, 2000])
        told: list[NewEvent] = []
        for _ in range(random.randrange(1, 80)):
            step += 1
            known[step] = None if random.random() < 0.05 else random.gauss(0, 1)
            told.append(metric("loss", step, known[step]))
        with database.write() as session:
            events.append(session, job_id, lease.token, told)
    return job_id, known


@pytest.mark.parametrize("seed", range(3))
def test_levels_are_those_of_the_whole_series_however_it_came(database: Database, seed: int) -> None:
    """The oracle is the migration's own way to make them, from all points at once."""
    job_id, known = written(database, Random(seed))
    points = {step: migration.Point(value, 0.0, 0) for step, value in known.items()}
    with database.read() as session:
        rows = session.scalars(select(MetricPoint).where(MetricPoint.job_id == job_id)).all()
    assert {row.step: row.value for row in rows} == known
    assert {row.step: row.level for row in rows} == migration._levels(points)


@pytest.mark.parametrize("most", [4, 50, 500])
def test_a_thinned_series_keeps_ends_and_spikes(database: Database, most: int) -> None:
    job_id, known = written(database, Random(7))
    with database.read() as session:
        found = metric_series(session, job_id, 10**9, Window(most))["loss"]
    check_thinned(found.points, [SeriesPoint(step, known[step], 0.0) for step in sorted(known)], most)
    assert found.is_thinned
    assert len(found.points) > most / 4


@given(st.lists(st.floats(-9, 9) | st.none(), max_size=300), st.integers(4, 60))
def test_thinning_keeps_ends_and_spikes(values: list[float | None], most: int) -> None:
    points = [SeriesPoint(step, value, 0.0) for step, value in enumerate(values)]
    check_thinned(thin(points, most), points, most)


def check_thinned(thinned: list[SeriesPoint], points: list[SeriesPoint], most: int) -> None:
    assert len(thinned) <= most
    assert set(thinned) <= set(points)
    assert all(one.step < other.step for one, other in pairwise(thinned))
    if points:
        assert (thinned[0], thinned[-1]) == (points[0], points[-1])
    numbers = [point.value for point in points if point.value is not None]
    for extreme in (min, max):
        kept = [point.value for point in thinned if point.value is not None]
        assert not numbers or extreme(kept) == extreme(numbers)
