"""What counting requests costs: GET /v1/jobs of a tenant without a limit beside one with, in turns, in one run.

    python -m tests.benchmarks.rate_limits [--rounds 20] [--requests 25]

Once with counters of the process's own, once with Redis's. The median of the requests' times is printed, and of
counting alone.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from publisher.hub.rate_limits import Counters, OwnCounters, SharedCounters
from publisher.store import quotas
from publisher.store.models import Tenant as TenantRow
from publisher.store.quotas import REQUESTS_PER_MINUTE
from tests.api.conftest import RunningApi, Tenant, serve_api
from tests.servers import redis_server

MANY = 100_000


def asking(tenant: Tenant) -> Callable[[], float]:
    """Seconds of one request over a connection that stays."""
    connection = http.client.HTTPConnection(tenant.url.removeprefix("http://"))
    headers = {"Authorization": f"Bearer {tenant.key}"}

    def ask() -> float:
        begun = time.perf_counter()
        connection.request("GET", "/v1/jobs", headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        return time.perf_counter() - begun

    return ask


def measure(api: RunningApi, rounds: int, requests: int) -> tuple[float, float]:
    """Median seconds of a request without and with a limit."""
    free, limited = api.tenant(), api.tenant()
    with api.database.write() as session:
        quotas.set_limit(session, session.get_one(TenantRow, limited.id), REQUESTS_PER_MINUTE, MANY)
    sides = [asking(free), asking(limited)]
    times: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        for side, ask in enumerate(sides):
            found = [ask() for _ in range(requests)]
            times[side] += found if number else []  # the first round warms up
    return statistics.median(times[0]), statistics.median(times[1])


def count_seconds(counters: Counters, number: int = 2000) -> float:
    times = []
    for _ in range(number):
        begun = time.perf_counter()
        counters.count("ten", MANY, time.time())
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=25)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as redis_url:
        for name, counters, changes in (
            ("own", OwnCounters(), {}),
            ("Redis", SharedCounters(redis_url), {"broker_url": redis_url}),
        ):
            alone = count_seconds(counters)
            with serve_api(Path(folder) / name, **changes) as api:
                without, limited = measure(api, chosen.rounds, chosen.requests)
            print(
                f"{name:5} counters: counting {1e6 * alone:6.1f} µs; GET /v1/jobs {1e3 * without:.2f} ms without a "
                f"limit, {1e3 * limited:.2f} ms with one ({limited / without:.3f}×)"
            )


if __name__ == "__main__":
    main()
