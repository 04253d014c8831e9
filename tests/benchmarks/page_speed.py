"""The first and the last page of a long list of jobs, asked for in turns.

python -m tests.benchmarks.page_speed [--jobs 100000] [--rounds 30]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import httpx
from sqlalchemy import insert

from publisher.store.models import Job
from tests.api.conftest import RunningApi, Tenant, serve_api
from tests.jobs import rows

BATCH = 10_000
LIMIT = 50


def add_jobs(api: RunningApi, tenant: Tenant, number: int) -> str:
    """Jobs of one variant; the id of the last but LIMIT, which is the cursor of the last page."""
    ids = [f"job_{index:012x}{index:010x}" for index in range(number)]
    variant = rows.add_variant(api.database, tenant.id)
    with api.database.write() as session:
        for start in range(0, number, BATCH):
            some = [{"id": id, "tenant_id": tenant.id, "variant_id": variant.id} for id in ids[start : start + BATCH]]
            session.execute(insert(Job), some)
    return ids[LIMIT]


def seconds(client: httpx.Client, **parameters: str | int) -> float:
    begun = time.perf_counter()
    answer = client.get("/v1/jobs", params={"limit": LIMIT, **parameters})
    took = time.perf_counter() - begun
    assert len(answer.json()["items"]) == LIMIT
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=30)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serve_api(Path(folder)) as api:
        tenant = api.tenant()
        cursor = add_jobs(api, tenant, asked.jobs)
        with tenant.client() as client:
            pairs = [(seconds(client), seconds(client, cursor=cursor)) for _ in range(asked.rounds)]
    first, last = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for other, one in pairs)
    print(f"{asked.jobs:,} jobs: first page {first * 1000:.1f} ms, last {last * 1000:.1f} ms, median ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
