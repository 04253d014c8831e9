"""What webhooks cost those who write jobs' events: POST /v1/variants and a worker's claim, without a webhook and with.

    python -m tests.benchmarks.webhook_cost [--rounds 5] [--requests 30]

Both sides are measured in turns in one process; nothing is delivered meanwhile. Medians, and the statements that a
claim's transaction sends.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import event

from publisher.jobs import leases
from publisher.store.database import Database
from tests.api.conftest import Body, RunningApi, Tenant, created, recipe, serve_api, write_corpus
from tests.benchmarks.submit_speed import poster
from tests.models import tiny_llama


def claimer(database: Database, jobs: list[str]) -> Callable[[], float]:
    """Seconds that one claim takes, of another job each time."""

    def claim() -> float:
        job_id = jobs.pop()
        begun = time.perf_counter()
        with database.write() as session:
            assert leases.claim(session, job_id, "worker", 3600) is not None
        return time.perf_counter() - begun

    return claim


def body_of(api: RunningApi, tenant: Tenant, *, hooked: bool) -> Body:
    with tenant.client() as client:
        base = created(client.post("/v1/base-models", json={"path": str(api.roots / "tiny")}))
        created(client.post("/v1/corpora", json={"name": "novel", "path": str(api.roots / "novel.jsonl")}))
        if hooked:
            created(client.post("/v1/webhooks", json={"url": "https://receiver.invalid/"}))
    publish = {"repo_id": f"{tenant.name}/x", "private": False}
    return {"base_model_id": base["id"], "recipe": recipe(), "publish": publish}


def queued(tenant: Tenant) -> list[str]:
    with tenant.client() as client:
        page = client.get("/v1/jobs", params={"state": "queued", "limit": 200}).raise_for_status().json()
    return [str(job["id"]) for job in page["items"]]


def statements(database: Database, work: Callable[[], float]) -> int:
    sent: list[str] = []
    record = lambda *call: sent.append(call[2])  # noqa: E731
    event.listen(database.engine, "before_cursor_execute", record)
    work()
    event.remove(database.engine, "before_cursor_execute", record)
    return len(sent)


def compare(api: RunningApi, rounds: int, requests: int) -> None:
    port = int(api.url.rpartition(":")[2])
    tenants = {"without": api.tenant(), "with one": api.tenant()}
    bodies = {name: body_of(api, tenant, hooked=name != "without") for name, tenant in tenants.items()}
    figures: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, tenant in tenants.items():
            post = poster(port, "/v1/variants", tenant.key, bodies[name])  # a server closes connections that rest
            figures.setdefault(f"POST /v1/variants, {name}", []).extend(post() for _ in range(requests))
        for name, tenant in tenants.items():
            claim = claimer(api.database, queued(tenant))
            figures.setdefault(f"claim, {name}", []).extend(claim() for _ in range(requests - 1))
    for name, seconds in figures.items():
        print(f"{name}: {1000 * statistics.median(seconds):.2f} ms")
    for name, tenant in tenants.items():
        poster(port, "/v1/variants", tenant.key, bodies[name])()
        print(f"claim, {name}: {statements(api.database, claimer(api.database, queued(tenant)))} statements")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=30)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serve_api(Path(folder) / "api", webhook_poll_seconds=3600) as api:
        tiny_llama(api.roots / "tiny")
        write_corpus(api.roots / "novel.jsonl")
        compare(api, asked.rounds, asked.requests)


if __name__ == "__main__":
    main()
