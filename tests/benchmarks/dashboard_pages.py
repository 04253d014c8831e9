"""What the dashboard's pages cost a full installation, each in CPU time of the service and in bytes.

    python -m tests.benchmarks.dashboard_pages [--jobs 10000] [--events 85000] [--rounds 15] [--database URL]

Fills a database with one tenant's jobs in every state, over models of some dozen layers, and one that runs and has
reported so many events. Pages are asked for in this process, without a network; CPU time is the process's own, SQLite's
work included, and that of the smallest page of all is printed to be taken off. Medians count, without the first call.
"""

from __future__ import annotations

import argparse
import gzip
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import insert

from publisher.app import create_app
from publisher.jobs import events
from publisher.jobs.events import NewEvent
from publisher.jobs.shapes import shape_of
from publisher.recipe import Recipe
from publisher.settings import Settings
from publisher.store.database import Database
from publisher.store.models import Job, JobAttempt, JobEvent, Variant, Worker
from publisher.store.states import EventKind, JobState
from publisher.store.variant_content import summary_of
from tests.dashboard.conftest import sign_in
from tests.dashboard.rows import FACTS, RECIPE, Account
from tests.manifest import contents

BATCH = 1000
BASES = 40
RUNNING, PER_STATE = 20, 20  #: of PER_STATE jobs two wait, two failed, one was cancelled; the others succeeded
SERIES = ("loss", "learning_rate", "tokens_per_second", "gradient_norm")
#: of jobs: newest first, filtered, sought, sorted
LISTS = (
    "/jobs",
    "/jobs?state=failed",
    "/jobs?q=small-77",
    "/jobs?q=nothing-like-it",
    "/jobs?sort=name",
    "/jobs?sort=-took",
    "/jobs?sort=-took&page=200",
    "/variants",
    "/variants?q=small-77",
    "/variants?sort=-reduction",
    "/variants?sort=verdict",
    "/base-models",
    "/base-models?sort=-parameters",
    "/families",
    "/overview",
)
WIDTH = contents.WIDTH


@dataclass(frozen=True)
class Filled:
    account: Account
    long_job: str
    variant: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=85_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--database")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = {"database_url": asked.database} if asked.database else {}
        settings = Settings(data_dir=Path(folder) / "data", reaper_seconds=3600, **where)
        with TestClient(create_app(settings), base_url="http://localhost", follow_redirects=False) as browser:
            database: Database = browser.app.state.service.database  # type: ignore[attr-defined]
            filled = fill(database, asked.jobs, asked.events)
            sign_in(browser, filled.account.key)
            print(f"{asked.jobs:,} jobs, one of {asked.events:,} events; median of {asked.rounds}")
            pages = ("/tenants/none", *LISTS, f"/jobs/{filled.long_job}", f"/variants/{filled.variant}")
            for page in pages:
                report(browser, page, asked.rounds)


def report(browser: TestClient, page: str, rounds: int) -> None:
    status, text = look(browser, page)
    taken = [cpu_seconds(browser, page) for _ in range(rounds)]
    packed = len(gzip.compress(text, 5, mtime=0))
    name = page if len(page) < 34 else f"{page[:30]}…"
    median = 1000 * statistics.median(taken)
    print(f"{name:34} {status} {median:7.1f} ms of CPU {len(text):9,} bytes {packed:8,} as gzip", flush=True)


def look(browser: TestClient, page: str) -> tuple[int, bytes]:
    answer = browser.get(page, headers={"Accept": "text/html"})
    return answer.status_code, answer.content


def cpu_seconds(browser: TestClient, page: str) -> float:
    begun = time.process_time()
    look(browser, page)
    return time.process_time() - begun


def fill(database: Database, jobs: int, told: int) -> Filled:
    account = Account.create(database, f"full-{os.getpid()}")
    bases = [account.base_model(f"org/base-{number}") for number in range(BASES)]
    shape = _shape(database, account, bases[0])
    add_workers(database)
    with database.write() as session:
        for batch in batches(list(rows(account, bases, shape, jobs))):
            for table, part in (("variant", Variant), ("job", Job), ("attempt", JobAttempt), ("event", JobEvent)):
                found = [row for made in batch for row in made[table]]
                if found:
                    session.execute(insert(part), found)
    variant = account.job("org/as-planned", bases[0]).variant_id
    return Filled(account, long_job(account, bases[0], told), variant)


def _shape(database: Database, account: Account, base: str) -> dict[str, Any]:
    variant = account.variant("org/shape", base)
    with database.read() as session:
        return shape_of(session, session.get_one(Variant, variant.id))


def batches(made: list[dict[str, list[Any]]]) -> Iterator[list[dict[str, list[Any]]]]:
    for start in range(0, len(made), BATCH):
        yield made[start : start + BATCH]


def rows(account: Account, bases: list[str], shape: dict[str, Any], jobs: int) -> Iterator[dict[str, list[Any]]]:
    """Of each job: its variant, itself, its attempt and what it told."""
    now = time.time()
    recipes = [recipe.model_dump(mode="json") for recipe in recipes_of(8)]
    manifest = full_manifest()
    said = summary_of(manifest)
    for number in range(jobs):
        at = now - 60.0 * (jobs - number)
        job, variant = f"job_{int(at * 1000):012x}{number:010x}", f"var_{int(at * 1000):012x}{number:010x}"
        state = state_of(number, jobs)
        own = {"id": job, "variant_id": variant, "tenant_id": account.tenant_id, "state": state, "created_at": at}
        over = state.finished
        yield {
            "variant": [
                {
                    "id": variant,
                    "tenant_id": account.tenant_id,
                    "base_model_id": bases[number % BASES],
                    "recipe": recipes[number % len(recipes)],
                    "recipe_digest": "0" * 64,
                    "publish_repo_id": f"org/small-{number}",
                    "publish_private": False,
                    "request_digest": "0" * 64,
                    "created_at": at,
                    "publication": PUBLICATION if state is JobState.SUCCEEDED else None,
                    "manifest": manifest if state is JobState.SUCCEEDED else None,
                    "reduction": said.reduction if state is JobState.SUCCEEDED else None,
                    "verdict": said.verdict if state is JobState.SUCCEEDED else None,
                }
            ],
            "job": [
                own | shape | moment(state, number, at) | {"finished_at": at + 50 + number % 977 if over else None}
            ],
            "attempt": [attempt(job, at)] if state is JobState.RUNNING else [],
            "event": told_by(job, account.tenant_id, number, at) if state is JobState.RUNNING else [],
        }


PUBLICATION = {"endpoint": "https://hub.example", "repo_id": "org/small", "commit": "ab" * 20, "url": "https://hub"}


def recipes_of(number: int) -> list[Recipe]:
    ratio = {"ratio": 0.3}
    pruning = RECIPE.pruning.model_copy(update=ratio)
    return [RECIPE.model_copy(update={"pruning": pruning, "seed": seed}) for seed in range(number)]


def full_manifest() -> dict[str, Any]:
    files = {f"model-{number:05}-of-00012.safetensors": {"size": 4 << 30, "sha256": "0" * 64} for number in range(12)}
    widths = [WIDTH] * 40
    sizes = {"base": FACTS.parameters, "pruned": 84_015_360}
    return contents.content(parameters=sizes, files=files, widths=widths, base_widths=widths)


def state_of(number: int, jobs: int) -> JobState:
    """The newest run, then every PER_STATE of the others alike."""
    if number >= jobs - RUNNING:
        return JobState.RUNNING
    return {
        0: JobState.QUEUED,
        1: JobState.QUEUED,
        2: JobState.FAILED,
        3: JobState.FAILED,
        4: JobState.CANCELLED,
    }.get(number % PER_STATE, JobState.SUCCEEDED)


def moment(state: JobState, number: int, at: float) -> dict[str, Any]:
    """Columns of a job in this state; the same for all, for a bulk insert."""
    running, begun = state is JobState.RUNNING, state is not JobState.QUEUED
    failure = {"blame": "infrastructure", "stage": "align", "message": "No space left.", "way_out": "Free space."}
    waiting = {"kind": "worker", "message": "no worker is running", "stage": None, "way_out": "Start one."}
    waits = state is JobState.QUEUED and number % PER_STATE == 0
    return {
        "stage": "align" if running else None,
        "stages": {"fetch": {"state": "finished", "seconds": 12.0}, "align": {"state": "started"}} if running else {},
        "attempt": 1 if begun else 0,
        "worker": f"gpu-{number % RUNNING}" if running else None,
        "lease_token": 1 if running else 0,
        "lease_expires_at": at + 1e6 if running else None,
        "started_at": at + 5 if begun else None,
        "failure": failure if state is JobState.FAILED else None,
        "waiting": waiting if waits else None,
        "waiting_kind": "worker" if waits else None,
        "event_seq": 7 if running else 3,
        "queued_at": at,
    }


def attempt(job: str, at: float) -> dict[str, Any]:
    return {"job_id": job, "number": 1, "attempt": 1, "worker": "gpu-0", "started_at": at, "first_event": 2}


def told_by(job: str, tenant_id: str, number: int, at: float) -> list[dict[str, Any]]:
    told: list[tuple[str, dict[str, Any]]] = [
        ("state", {"state": "queued", "attempt": 0}),
        ("state", {"state": "running", "attempt": 1}),
        ("stage", {"stage": "fetch", "state": "finished", "seconds": 12.0}),
        ("stage", {"stage": "align", "state": "started"}),
        *(("progress", {"stage": "align", "done": done, "total": 4000, "unit": "tokens"}) for done in (100, 200, 300)),
    ]
    return [
        {"job_id": job, "seq": seq, "tenant_id": tenant_id, "number": None, "kind": kind, "at": at + seq, "data": data}
        for seq, (kind, data) in enumerate(told, 1)
    ]


def add_workers(database: Database) -> None:
    with database.write() as session:
        for number in range(RUNNING):
            values = {"device": "cuda:0 NVIDIA H200", "flops_per_second": 4e14, "fp32_flops_per_second": 5e13}
            more = {"memory_bytes": 141 << 30, "seen_at": time.time() + 3600, "kind": "gpu", "devices": 1}
            session.merge(Worker(id=f"gpu-{number}", free_disk_bytes=1 << 40, host=f"node-{number}", **values, **more))


def long_job(account: Account, base: str, told: int) -> str:
    """It aligns, and reports its progress between its metrics, as workers do."""
    work = account.job("org/long", base).start("gpu-0").stages("fetch", "calibrate", "prune", running="align")
    lease = work.lease
    assert lease is not None
    steps = told // (len(SERIES) + 1)
    for first in range(0, steps, BATCH):
        with account.database.write() as session:
            batch = list(step_events(first, min(first + BATCH, steps), steps))
            events.append(session, lease.job_id, lease.token, batch)
    return work.job_id


def step_events(first: int, last: int, steps: int) -> Iterator[NewEvent]:
    for step in range(first, last):
        for name in SERIES:
            yield NewEvent(EventKind.METRIC, {"name": name, "step": step, "value": 2 + (step * 7919 % 97) / (step + 1)})
        yield NewEvent(EventKind.PROGRESS, {"stage": "align", "done": step, "total": steps, "unit": "tokens"})


if __name__ == "__main__":
    main()
