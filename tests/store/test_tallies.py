"""Counters in the database: they add up whoever counts, never fall, and stay few."""

from __future__ import annotations

import threading

from sqlalchemy import func, select

from publisher.store import tallies
from publisher.store.database import Database
from publisher.store.models import Tally
from publisher.store.tallies import Observation, Part


def counted(database: Database) -> dict[tuple[str, ...], int]:
    with database.read() as session:
        return {part.labels: part.count for part in tallies.read(session) if part.name == tallies.PUBLICATIONS.name}


def test_many_count_at_once_and_nothing_is_missing(database: Database) -> None:
    def count() -> None:
        for _ in range(20):
            with database.write() as session:
                tallies.count(session, tallies.PUBLICATIONS, "succeeded")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted(database) == {("succeeded",): 80}


def test_what_is_rolled_back_is_not_counted(database: Database) -> None:
    with database.read() as session:
        tallies.count(session, tallies.PUBLICATIONS, "failed")
    assert counted(database) == {}


def test_a_value_falls_into_the_bucket_that_it_is_not_above(database: Database) -> None:
    values = [0.5, 1.0, 1.5, 1e9]
    with database.write() as session:
        tallies.observe(session, [Observation(tallies.STAGE_SECONDS, ("prune",), value) for value in values])
    with database.read() as session:
        found = {part.bucket: (part.count, part.total) for part in tallies.read(session)}
    assert found == {1.0: (2, 1.5), 5.0: (1, 1.5), None: (1, 1e9)}


def test_merging_changes_no_sum_and_leaves_few_rows(database: Database) -> None:
    with database.write() as session:
        for outcome in ("succeeded", "failed"):
            for _ in range(tallies.ENOUGH // 2):
                tallies.count(session, tallies.PUBLICATIONS, outcome)
        tallies.observe(session, [Observation(tallies.STAGE_SECONDS, ("prune",), 2.0)] * 10)
    before = everything(database)
    with database.write() as session:
        tallies.merge(session)
    assert everything(database) == before
    assert rows(database) == 3
    with database.write() as session:
        tallies.merge(session)  # so few are left alone
    assert rows(database) == 3


def everything(database: Database) -> set[Part]:
    with database.read() as session:
        return set(tallies.read(session))


def rows(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Tally)) or 0
