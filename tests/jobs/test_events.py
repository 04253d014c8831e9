"""Events are numbered without gaps, whoever writes at the same time, and are read without loss or repeat."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from publisher.errors import LeaseLost
from publisher.jobs import events, service
from publisher.jobs.events import NewEvent
from publisher.store.database import Database
from publisher.store.states import EventKind
from tests.jobs import rows


def test_numbers_have_no_gaps_under_concurrent_writers(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)

    def write(number: int) -> None:
        batch = [NewEvent(EventKind.LOG, {"message": f"{number}.{part}"}) for part in range(3)]
        with database.write() as session:
            events.append(session, job_id, lease.token, batch)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    written = rows.read_events(database, job_id)
    assert [event.seq for event in written] == list(range(1, 2 + 120 + 1))
    assert rows.load(database, job_id).event_seq == written[-1].seq


def test_listener_that_resumes_loses_and_repeats_nothing(database: Database) -> None:
    """The listener reads while others write, always from the last number it saw."""
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    done = threading.Event()
    seen: list[int] = []

    def listen() -> None:
        while not done.is_set() or seen[-1] < 102:
            seen.extend(event.seq for event in rows.read_events(database, job_id, seen[-1] if seen else 0))

    def write(_: int) -> None:
        with database.write() as session:
            events.append(session, job_id, lease.token, [NewEvent(EventKind.LOG, {"message": "x"})])

    listener = threading.Thread(target=listen)
    listener.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(100)))
    done.set()
    listener.join()
    assert seen == list(range(1, 103))


def test_refused_batch_leaves_no_trace(database: Database) -> None:
    job_id = rows.add_job(database)
    lease = rows.claim(database, job_id)
    before = rows.read_events(database, job_id)

    def write_with_old_token() -> None:
        with database.write() as session:
            events.append(session, job_id, lease.token - 1, [NewEvent(EventKind.LOG, {"message": "late"})])

    with pytest.raises(LeaseLost, match="lease 0"):
        write_with_old_token()
    assert rows.read_events(database, job_id) == before


def test_state_changes_are_events_in_their_order(database: Database) -> None:
    job_id = rows.add_job(database)
    rows.claim(database, job_id)
    with database.write() as session:
        service.cancel(session, job_id)
    assert rows.states(database, job_id) == ["queued", "running", "cancelling"]
