"""A tenant's events are numbered without gaps in the order of commits, of whichever jobs, without deadlocks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from publisher.jobs import events
from publisher.jobs.events import NewEvent
from publisher.jobs.leases import Lease
from publisher.store.database import Database
from publisher.store.models import Job, JobEvent, Tenant
from publisher.store.states import EventKind, JobState
from tests.jobs import rows


def said(text: str) -> NewEvent:
    return NewEvent(EventKind.LOG, {"message": text})


def leases(database: Database, jobs: int) -> tuple[str, list[Lease]]:
    """A tenant with this many running jobs."""
    variant = rows.add_variant(database)
    ids = [rows.add_job(database, variant) for _ in range(jobs)]
    return variant.tenant_id, [rows.claim(database, id) for id in ids]


def numbers(database: Database, tenant_id: str, after: int = 0) -> list[int]:
    with database.read() as session:
        statement = select(JobEvent.number).where(JobEvent.tenant_id == tenant_id, JobEvent.number > after)
        return [number for number in session.scalars(statement.order_by(JobEvent.number)) if number is not None]


def test_a_listener_to_all_jobs_loses_and_repeats_nothing_while_many_write(database: Database) -> None:
    tenant_id, held = leases(database, 4)
    done = threading.Event()
    seen: list[int] = []

    def listen() -> None:
        while not done.is_set() or not seen or seen[-1] < 128:
            seen.extend(numbers(database, tenant_id, seen[-1] if seen else 0))

    def write(number: int) -> None:
        lease = held[number % len(held)]
        with database.write() as session:
            for text in "abc":
                events.append(session, lease.job_id, lease.token, [said(text)])

    listener = threading.Thread(target=listen)
    listener.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    done.set()
    listener.join()
    assert seen == list(range(1, 8 + 120 + 1))
    with database.read() as session:
        assert session.get_one(Tenant, tenant_id).event_seq == seen[-1]


def test_events_of_a_job_are_in_one_order_by_both_numbers(database: Database) -> None:
    tenant_id, (lease, _) = leases(database, 2)
    with database.write() as session:
        events.append(session, lease.job_id, lease.token, [said("a"), said("b")])
        events.move(session, lease.job_id, JobState.CANCELLED, only_from=[JobState.RUNNING])
    with database.read() as session:
        mine = select(JobEvent).where(JobEvent.job_id == lease.job_id).order_by(JobEvent.number)
        assert [(row.seq, row.tenant_id) for row in session.scalars(mine)] == [(seq, tenant_id) for seq in range(1, 6)]


def test_what_is_rolled_back_leaves_no_gap(database: Database) -> None:
    tenant_id, (lease,) = leases(database, 1)
    before = numbers(database, tenant_id)

    def write_and_fail() -> None:
        with database.write() as session:
            events.append(session, lease.job_id, lease.token, [said("lost")])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with database.write() as session:
        events.append(session, lease.job_id, lease.token, [said("kept")])
    assert numbers(database, tenant_id) == [*before, before[-1] + 1]


def test_transactions_that_end_jobs_of_the_same_tenants_in_other_orders_do_not_deadlock(postgresql_url: str) -> None:
    """As two reapers do. Each makes its first event before the other makes its second; SQLite has one writer."""
    from publisher.store import migrate

    migrate.upgrade(postgresql_url)
    database = Database(postgresql_url)
    first, second = leases(database, 2), leases(database, 2)
    both_hold_one = threading.Barrier(2, timeout=20)

    def end(ids: list[str]) -> None:
        with database.write() as session:
            events.move(session, ids[0], JobState.CANCELLED, only_from=[JobState.RUNNING])
            both_hold_one.wait()
            events.move(session, ids[1], JobState.CANCELLED, only_from=[JobState.RUNNING])

    orders = [[first[1][0].job_id, second[1][0].job_id], [second[1][1].job_id, first[1][1].job_id]]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(end, orders))
    for tenant_id, _ in (first, second):
        assert numbers(database, tenant_id) == [1, 2, 3, 4, 5, 6]
    with database.read() as session:
        assert {job.state for job in session.scalars(select(Job))} == {JobState.CANCELLED}
    database.close()


def test_events_within_a_savepoint_are_refused(database: Database) -> None:
    _, (lease,) = leases(database, 1)

    def write() -> None:
        with database.write() as session, session.begin_nested():
            events.append(session, lease.job_id, lease.token, [said("x")])

    with pytest.raises(RuntimeError, match="savepoint"):
        write()
