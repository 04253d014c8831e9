"""What is read of a job's events: series as last reported, the newest of a kind, and nothing of another job's."""

from __future__ import annotations

import pytest

from publisher.jobs import events
from publisher.jobs.events import NewEvent
from publisher.store import job_history
from publisher.store.database import Database
from publisher.store.job_history import MetricPoint
from publisher.store.states import EventKind
from tests.jobs.rows import add_job, claim


def metric(name: str, step: int, value: float | None, at: float = 0.0) -> NewEvent:
    return NewEvent(EventKind.METRIC, {"name": name, "step": step, "value": value}, at)


def report(database: Database, *reported: NewEvent) -> str:
    """A running job with these events, numbered from 3: before them it was queued and then claimed."""
    job_id = add_job(database)
    lease = claim(database, job_id)
    with database.write() as session:
        events.append(session, job_id, lease.token, reported)
    return job_id


def test_series_rise_by_step_and_hold_each_step_as_last_reported(database: Database) -> None:
    job_id = report(
        database,
        metric("loss", 20, 3.0, at=1.0),
        metric("loss", 3, 2.5, at=2.0),
        metric("perplexity", 0, 1e300, at=3.0),
        metric("loss", 20, None, at=4.0),
        NewEvent(EventKind.LOG, {"message": "loss"}),
    )
    with database.read() as session:
        assert job_history.metric_series(session, job_id, 100) == {
            "loss": [MetricPoint(3, 2.5, 2.0), MetricPoint(20, None, 4.0)],
            "perplexity": [MetricPoint(0, 1e300, 3.0)],
        }


def test_series_end_at_the_number_that_is_asked_for(database: Database) -> None:
    job_id = report(database, metric("loss", 1, 3.0), metric("loss", 1, 1.0), metric("loss", 2, 2.0))
    with database.read() as session:
        (first,) = job_history.metric_series(session, job_id, 3)["loss"]
        assert (first.step, first.value) == (1, 3.0)
        assert job_history.metric_series(session, job_id, 2) == {}


def test_no_series_holds_another_jobs_points(database: Database) -> None:
    mine, other = report(database, metric("loss", 1, 1.0)), report(database, metric("loss", 2, 2.0))
    with database.read() as session:
        assert [point.step for point in job_history.metric_series(session, mine, 100)["loss"]] == [1]
        assert [point.step for point in job_history.metric_series(session, other, 100)["loss"]] == [2]


@pytest.mark.parametrize(("limit", "lines"), [(1, ["c"]), (2, ["b", "c"]), (9, ["a", "b", "c"])])
def test_last_of_a_kind_are_the_newest_oldest_first(database: Database, limit: int, lines: list[str]) -> None:
    said = [NewEvent(EventKind.LOG, {"message": word}) for word in "abc"]
    job_id = report(database, *said, metric("loss", 1, 1.0))
    with database.read() as session:
        found = job_history.last_of_kind(session, job_id, EventKind.LOG, 100, limit)
    assert [event.data["message"] for event in found] == lines


def test_events_of_kinds_leave_out_the_rest_and_what_came_later(database: Database) -> None:
    log = NewEvent(EventKind.LOG, {"message": "x"})
    job_id = report(database, log, metric("loss", 1, 1.0), log)
    with database.read() as session:
        found = job_history.of_kinds(session, job_id, [EventKind.STATE, EventKind.LOG], 4)
    assert [(event.seq, event.kind) for event in found] == [(1, "state"), (2, "state"), (3, "log")]


def test_first_progress_is_of_the_unit_and_after_the_number(database: Database) -> None:
    def progress(done: int, unit: str) -> NewEvent:
        return NewEvent(EventKind.PROGRESS, {"stage": "align", "done": done, "total": 9, "unit": unit})

    job_id = report(database, progress(1, "layers"), progress(2, "steps"), progress(3, "layers"), progress(4, "layers"))
    with database.read() as session:
        first = job_history.first_progress_after(session, job_id, "layers", 3, 100)
        assert first is not None
        assert first.data["done"] == 3
        assert job_history.first_progress_after(session, job_id, "layers", 3, 4) is None
        assert job_history.first_progress_after(session, job_id, "bytes", 0, 100) is None
