"""What a stage took at the most is told of the stage that took it."""

from __future__ import annotations

import sys

from publisher.settings import Settings
from publisher.store import migrate, tallies
from publisher.store.database import Database
from tests.jobs.rows import add_job, claim
from worker.jobs.memory import StageMemory
from worker.jobs.reporter import JobReporter

MIB = 2**20


def test_a_peak_is_seen_though_it_was_over_before_the_stage_ended() -> None:
    memory = StageMemory()
    memory.begin()
    memory.sample()
    before = memory.end()["cpu"]
    held = bytearray(200 * MIB)
    held[::4096] = b"x" * len(held[::4096])
    del held
    peak = memory.end()["cpu"]
    assert peak - before > 150 * MIB
    assert "gpu" not in memory.end() or "torch" in sys.modules


def test_a_stage_does_not_answer_for_the_one_before() -> None:
    memory = StageMemory()
    memory.begin()
    held = bytearray(300 * MIB)
    held[::4096] = b"x" * len(held[::4096])
    del held
    first = memory.end()["cpu"]
    memory.begin()
    assert first - memory.end()["cpu"] > 200 * MIB


def test_a_finished_stage_is_counted_with_the_seconds_and_memory_that_it_took(settings: Settings) -> None:
    migrate.upgrade(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    lease = claim(database, add_job(database))
    with JobReporter(database, lease, settings) as reporter:
        reporter.on_stage("fetch", "started", None)
        reporter.on_stage("fetch", "reused", 3.0)
        reporter.on_stage("prune", "started", None)
        reporter.on_stage("prune", "finished", 7.0)
        reporter.finish(lambda session: None)
    with database.read() as session:
        found = {(part.name, part.labels): (part.count, part.bucket) for part in tallies.read(session)}
    database.close()
    assert found[tallies.STAGE_SECONDS.name, ("prune",)] == (1, 15.0)
    assert found[tallies.STAGE_MEMORY.name, ("prune", "cpu")][0] == 1
    assert not [labels for _, labels in found if labels[0] == "fetch"]
