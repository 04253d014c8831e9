"""Jobs through Redis, beside tasks of bare Celery: python -m tests.benchmarks.job_throughput --jobs 5000

Every side has the same broker, the same Celery application (acknowledged late, one message at a time, one thread),
one worker, and for every job the same process that does nothing: an empty Python, since a job is a Python process here.
Left out is what the real one imports, which takes seconds. `--process true` shows more of what is beside the process.

tests.empty        a task that does nothing else
tests.same_rows    a task that leaves the rows of a job in PostgreSQL, by hand: taken, events of every stage, published
publisher.run_job  the real task: claim, lease, a reporter, events of every stage, success; a process that ends its try
                   itself, as this one does, is waited for and not looked after
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
from sqlalchemy import func, select

from publisher.jobs.broker import RUN_JOB, create_celery
from publisher.jobs.service import enqueue
from publisher.settings import Settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.models import Job, Variant
from publisher.store.states import JobState
from tests import servers
from tests.jobs.rows import add_variant

_MODULE = "tests.benchmarks.job_throughput_worker"
#: an interpreter that imports nothing, or no Python at all
_PROCESSES = {"python": [sys.executable, "-I", "-S", "-c", "pass"], "true": ["true"]}
# as they are named there
EMPTY, SAME_ROWS = "tests.empty", "tests.same_rows"


@dataclass(frozen=True)
class Side:
    """`cpu`: seconds of the worker's process and of those that it started."""

    jobs: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        return self.jobs / self.seconds

    def __str__(self) -> str:
        return f"{self.rate:7.1f} jobs/s ({self.seconds:.1f} s, {1000 * self.cpu / self.jobs:.1f} ms of CPU a job)"


@click.command(help=__doc__)
@click.option("--jobs", default=5000, show_default=True)
@click.option("--process", type=click.Choice(["python", "true"]), default="python", show_default=True)
@click.option("--least", type=float, help="exit 1 below this share of the empty task")
def main(jobs: int, process: str, least: float | None) -> None:
    with tempfile.TemporaryDirectory(prefix="job-throughput-") as name, servers.postgresql() as database_url:
        folder = Path(name)
        with servers.redis_server(folder) as broker_url:
            migrate.upgrade(database_url)
            own = Settings(data_dir=folder / "data", database_url=database_url, broker_url=broker_url)
            bench = _Bench(folder, own, jobs, _PROCESSES[process])
            sides = {task: bench.measure(task) for task in (EMPTY, SAME_ROWS, RUN_JOB)}
            bench.check(2 * jobs)
    product = sides.pop(RUN_JOB)
    for task, side in sides.items():
        print(f"share of {task}: {product.rate / side.rate:.2f}, by CPU {side.cpu / product.cpu:.2f}")
    sys.exit(least is not None and product.rate / sides[EMPTY].rate < least)


@dataclass(frozen=True)
class _Bench:
    folder: Path
    own: Settings
    jobs: int
    process: list[str]

    def measure(self, task: str) -> Side:
        """Queue the jobs, then let one worker do them."""
        ids = [str(number) for number in range(self.jobs)] if task == EMPTY else self._enqueue()
        celery = create_celery(self.own)
        for job_id in ids:
            celery.send_task(task, args=[job_id])
        celery.close()
        side = self._drain()
        print(f"{task:17} {side}", flush=True)
        return side

    def _enqueue(self) -> list[str]:
        """Queued jobs, each of a variant of its own."""
        database = Database(self.own.resolved_database_url)
        pattern = vars(add_variant(database))
        columns = {key: value for key, value in pattern.items() if key in Variant.__table__.columns and key != "id"}
        with database.write() as session:
            variants = [Variant(**columns) for _ in range(self.jobs)]
            session.add_all(variants)
            session.flush()
            ids = [enqueue(session, variant).id for variant in variants]
        database.close()
        return ids

    def _drain(self) -> Side:
        """One worker, until everything that waits in the broker is done."""
        result = self.folder / "result.json"
        result.unlink(missing_ok=True)
        environment = os.environ | {
            "PUBLISHER_DATA_DIR": str(self.own.data_dir),
            "PUBLISHER_DATABASE_URL": self.own.resolved_database_url,
            "PUBLISHER_BROKER_URL": self.own.resolved_broker_url,
            "PUBLISHER_WORKER_DEVICE": "cpu",
            "JOB_THROUGHPUT_RESULT": str(result),
            "JOB_THROUGHPUT_JOBS": str(self.jobs),
            "JOB_THROUGHPUT_PROCESS": json.dumps(self.process),
        }
        command = [sys.executable, "-m", "celery", "-A", _MODULE, "worker", "--pool", "threads", "--concurrency", "1"]
        log = self.folder / "worker.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command, "--loglevel", "WARNING"], env=environment, stdout=output, stderr=output
            )
        try:
            servers.wait_until(lambda: result.exists() or process.poll() is not None, "end of the last job", 1800)
            if not result.exists():
                raise RuntimeError(log.read_text())
            return Side(self.jobs, **json.loads(result.read_text()))
        finally:
            process.terminate()
            process.wait()

    def check(self, expected: int) -> None:
        database = Database(self.own.resolved_database_url)
        with database.read() as session:
            done = session.scalar(select(func.count()).where(Job.state == JobState.SUCCEEDED))
        database.close()
        assert done == expected, f"{done} of {expected} jobs succeeded"


if __name__ == "__main__":
    main()
