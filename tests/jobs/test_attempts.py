"""Every time that a worker had a job is kept, with how it ended; a retry forgets none."""

from __future__ import annotations

from typing import Any

from publisher.jobs import leases, service, transitions
from publisher.jobs.events import NewEvent
from publisher.jobs.transitions import Blame, Failure, RetryPolicy
from publisher.jobs.waiting import Waiting, WaitKind
from publisher.store.database import Database
from publisher.store.job_history import attempts_before
from publisher.store.models import JobAttempt
from publisher.store.states import EventKind
from tests.jobs import rows

POLICY = RetryPolicy(max_attempts=2, backoff_seconds=0)
FULL = Failure(Blame.INFRASTRUCTURE, "prune", "disk full")


def attempts(database: Database, job_id: str) -> list[JobAttempt]:
    """Oldest first."""
    with database.read() as session:
        return attempts_before(session, job_id, None, 100)[::-1]


def end(database: Database, job_id: str, how: Any, *more: Any, worker: str = "w1") -> None:
    lease = rows.claim(database, job_id, worker)
    with database.write() as session:
        how(session, lease, *more)


def test_each_way_to_end_is_told(database: Database) -> None:
    job_id = rows.add_job(database)
    end(database, job_id, transitions.release)
    end(database, job_id, transitions.wait, Waiting(WaitKind.HUB, "away"), 0)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        service.pause(session, job_id)
        transitions.release(session, lease)
        service.resume(session, job_id)
    end(database, job_id, transitions.fail, FULL, POLICY)
    end(database, job_id, transitions.fail, FULL, POLICY, worker="w2")
    with database.write() as session:
        service.retry(session, job_id)
    lease = rows.claim(database, job_id)
    with database.write() as session:
        service.cancel(session, job_id)
        transitions.finish_cancel(session, lease)
        service.retry(session, job_id)
    end(database, job_id, transitions.succeed, {"commit": "c"}, {}, [])
    found = attempts(database, job_id)
    assert [row.outcome for row in found] == [
        *("released", "waiting", "paused", "failed", "failed", "cancelled", "succeeded")
    ]
    assert [row.number for row in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [row.attempt for row in found] == [1, 1, 1, 1, 2, 1, 1]
    assert [row.worker for row in found] == ["w1"] * 4 + ["w2"] + ["w1"] * 2
    assert [row.failure and row.failure["message"] for row in found] == [None] * 3 + ["disk full"] * 2 + [None] * 2
    assert found[1].waiting is not None
    assert all((row.finished_at or 0) >= row.started_at > 0 for row in found)


def test_attempts_part_the_events_among_them(database: Database) -> None:
    job_id = rows.add_job(database)
    for message in ("one", "two"):
        lease = rows.claim(database, job_id)
        said = [NewEvent(EventKind.LOG, {"message": message})]
        with database.write() as session:
            leases.report(session, lease, said, "prune", {"prune": {"state": "started"}})
            transitions.fail(session, lease, FULL, POLICY)
    first, second = attempts(database, job_id)
    assert (first.first_event, first.last_event, second.first_event, second.last_event) == (2, 4, 5, 7)
    events = {event.seq: event.data for event in rows.read_events(database, job_id)}
    assert events[first.first_event]["state"] == events[second.first_event]["state"] == "running"
    assert (events[3]["message"], events[6]["message"]) == ("one", "two")


def test_stages_of_an_attempt_outlive_the_retry_that_clears_the_jobs(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    stages = {"fetch": {"state": "finished", "seconds": 2.5}}
    with database.write() as session:
        finished = NewEvent(EventKind.STAGE, {"stage": "fetch", "state": "finished", "seconds": 2.5})
        leases.report(session, lease, [finished], "fetch", stages)
        transitions.fail(session, lease, Failure(Blame.REQUEST, "fetch", "no"), POLICY)
        service.retry(session, job_id)
    assert rows.load(database, job_id).stages == {}
    assert [row.stages for row in attempts(database, job_id)] == [stages]


def test_attempt_whose_worker_lost_the_job_is_not_written_by_it(database: Database) -> None:
    job_id = rows.add_job(database)
    rows.claim(database, job_id)
    (running,) = attempts(database, job_id)
    assert (running.outcome, running.finished_at, running.last_event) == (None, None, None)
