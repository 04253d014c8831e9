"""What a job costs the database from its claim to its end, beside what its stages do: two transactions, few statements.

More would be noticed only as a queue that drains more slowly (tests/benchmarks/job_throughput.py).
"""

from __future__ import annotations

from sqlalchemy import event

from publisher.jobs import transitions, turns
from publisher.jobs.transitions import PublishedFile
from publisher.recipe.stages import Stage
from publisher.settings import Settings
from publisher.store.database import Database
from publisher.store.states import JobState
from tests.jobs import rows
from worker.jobs.reporter import JobReporter


def test_stages_that_end_at_once_cost_two_transactions_and_few_statements(
    database: Database, settings: Settings
) -> None:
    rows.add_worker(database, "w")
    named, *_ = [rows.add_job(database) for _ in range(10)]
    statements: list[str] = []
    event.listen(database.engine, "begin", lambda _: statements.append("BEGIN"))
    event.listen(database.engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    with database.write() as session:
        lease = turns.take(session, named, "w", settings.lease_seconds)
    assert lease is not None
    with JobReporter(database, lease, settings) as reporter:
        for stage in Stage:
            reporter.on_stage(stage, "started", None)
            reporter.on_stage(stage, "finished", None)
        files = [PublishedFile("model.safetensors", 1, "0" * 64)]
        reporter.finish(lambda session: transitions.succeed(session, lease, {}, {}, files))
    begun = statements.count("BEGIN")
    sent = [statement for statement in statements if not statement.startswith("BEGIN")]
    assert rows.load(database, named).state is JobState.SUCCEEDED
    assert (begun, len(sent)) == (2, 18), sent
