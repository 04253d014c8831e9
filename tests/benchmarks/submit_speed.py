"""How much of its time POST /v1/variants spends on more than it must: beside a bare FastAPI route that sends the same
SQL to the database and the same message to the broker.

    python -m tests.benchmarks.submit_speed [--rounds 9] [--requests 40]

What a submission sends to the database is recorded and sent again by the bare route, with other ids. Both sides run in
one process, one request at a time over one connection, in turns; the ratio of the median times is printed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Engine, event

from publisher.jobs.broker import RUN_JOB, create_celery
from publisher.store.models import new_id
from tests.api.conftest import Body, RunningApi, created, recipe, serve_api, write_corpus
from tests.models import tiny_llama
from tests.servers import redis_server, serve


@dataclass
class Transaction:
    writes: bool
    statements: list[tuple[str, Any]] = field(default_factory=list)


@contextmanager
def recording(engine: Engine) -> Iterator[list[Transaction]]:
    """What is sent to the database inside the block."""
    found: list[Transaction] = []

    def begun(connection: Any) -> None:
        found.append(Transaction("sqlite_begin" in connection.get_execution_options()))

    def sent(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            found[-1].statements.append((statement, parameters))

    event.listen(engine, "begin", begun)
    event.listen(engine, "before_cursor_execute", sent)
    yield found
    event.remove(engine, "begin", begun)
    event.remove(engine, "before_cursor_execute", sent)


def bare_app(api: RunningApi, transactions: list[Transaction], answer: Body) -> FastAPI:
    """One route that does the same at the database and at the broker, and checks nothing."""
    app, celery = FastAPI(), create_celery(api.settings)
    engine = api.database.engine
    writer = engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")

    @app.post("/submit")
    def submit(body: Body) -> Body:
        ids = {answer["id"]: new_id("var"), answer["job"]["id"]: new_id("job")}
        for transaction in transactions:
            run(transaction, ids)
        celery.send_task(RUN_JOB, args=[ids[answer["job"]["id"]]], retry=False)
        return answer

    def run(transaction: Transaction, ids: dict[str, str]) -> None:
        number = None  # of the tenant's next event: what the statement before the last one says
        with (writer if transaction.writes else engine).connect() as connection:
            for statement, parameters in transaction.statements:
                result = connection.exec_driver_sql(statement, renamed(statement, parameters, ids, number))
                if result.returns_rows:
                    rows = result.fetchall()
                    number = rows[0][0] if statement.startswith("UPDATE tenants") else number
            if transaction.writes:
                connection.commit()

    return app


def renamed(statement: str, parameters: tuple[Any, ...], ids: dict[str, str], number: int | None) -> tuple[Any, ...]:
    """The parameters with other ids, an event's with the number that is its turn."""
    found = [ids.get(value, value) if isinstance(value, str) else value for value in parameters]
    columns = statement.partition("(")[2].partition(")")[0].split(", ")
    if statement.startswith("INSERT INTO job_events"):
        found[columns.index("number")] = number
    if statement.startswith("INSERT INTO audit_log"):
        found[columns.index("id")] = new_id("aud")
    return tuple(found)


def poster(port: int, path: str, key: str, body: Body) -> Callable[[], float]:
    """Seconds that one request takes."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    text = json.dumps(body)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}

    def post() -> float:
        begun = time.perf_counter()
        connection.request("POST", path, text, headers)
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status < 300, said
        return time.perf_counter() - begun

    return post


def compare(api: RunningApi, rounds: int, requests: int) -> None:
    tenant = api.tenant()
    with tenant.client() as client:
        base = created(client.post("/v1/base-models", json={"path": str(tiny_llama(api.roots / "tiny"))}))
        path = write_corpus(api.roots / "novel.jsonl")
        created(client.post("/v1/corpora", json={"name": "novel", "path": str(path)}))
        body: Body = {
            "base_model_id": base["id"],
            "recipe": recipe(),
            "publish": {"repo_id": f"{tenant.name}/x", "private": False},
        }
        created(client.post("/v1/variants", json=body))  # warm
        with recording(api.database.engine) as transactions:
            answer = created(client.post("/v1/variants", json=body))
    mine = [each for each in transactions if each.statements]
    print(f"{sum(len(each.statements) for each in mine)} statements in {len(mine)} transactions")
    with serve(bare_app(api, mine, answer)) as port:
        ours = poster(int(api.url.rpartition(":")[2]), "/v1/variants", tenant.key, body)
        bare = poster(port, "/submit", tenant.key, body)
        ratios = []
        for _ in range(rounds):
            one = statistics.median(ours() for _ in range(requests))
            other = statistics.median(bare() for _ in range(requests))
            ratios.append(other / one)
            print(f"ours {one * 1000:6.2f} ms, bare {other * 1000:6.2f} ms: {other / one:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=40)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_server(Path(folder)) as url,
        serve_api(Path(folder) / "api", broker_url=url) as api,
    ):
        compare(api, asked.rounds, asked.requests)


if __name__ == "__main__":
    main()
