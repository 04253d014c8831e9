"""What is read of a job's events: the newest of a kind, and nothing of another job's."""

from __future__ import annotations

import pytest

from publisher.jobs.events import NewEvent
from publisher.store import job_history
from publisher.store.database import Database
from publisher.store.states import EventKind
from tests.jobs.rows import metric, report


@pytest.mark.parametrize(("limit", "lines"), [(1, ["c"]), (2, ["b", "c"]), (9, ["a", "b", "c"])])
def test_last_of_a_kind_are_the_newest_oldest_first(database: Database, limit: int, lines: list[str]) -> None:
    said = [NewEvent(EventKind.LOG, {"message": word}) for word in "abc"]
    job_id = report(database, *said, metric("loss", 1, 1.0))
    with database.read() as session:
        found = job_history.last_of_kind(session, job_id, EventKind.LOG, 100, limit)
    assert [event.data["message"] for event in found] == lines


def test_first_progress_is_of_the_unit_and_after_the_number(database: Database) -> None:
    def progress(done: int, unit: str, stage: str = "align") -> NewEvent:
        return NewEvent(EventKind.PROGRESS, {"stage": stage, "done": done, "total": 9, "unit": unit})

    told = [progress(1, "layers"), progress(2, "steps"), progress(3, "layers", "prune"), progress(4, "layers")]
    job_id = report(database, *told, progress(5, "layers"))
    with database.read() as session:
        (last,) = job_history.last_of_kind(session, job_id, EventKind.PROGRESS, 100, 1)
        assert job_history.first_progress_after(session, last, 3).data["done"] == 4
        assert job_history.first_progress_after(session, last, 0).data["done"] == 1
