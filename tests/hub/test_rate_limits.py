"""Requests a minute: never more than allowed in any sixty seconds, counted alike by one process and by several."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub.utils import parse_ratelimit_headers

from publisher.hub.rate_limits import Counters, OwnCounters, RateLimiter, SharedCounters, TooManyRequests
from publisher.hub.rate_window import Rate
from publisher.settings import Settings
from publisher.store import keys, migrate, origin, quotas
from publisher.store.database import Database
from publisher.store.models import Tenant
from publisher.store.quotas import REQUESTS_PER_MINUTE
from tests.servers import free_port

START = 60.0 * 30_000_000


@pytest.fixture(params=["own", "shared"])
def counters(request: pytest.FixtureRequest) -> Counters:
    return OwnCounters() if request.param == "own" else SharedCounters(request.getfixturevalue("redis_url"))


def test_so_many_are_let_in_and_the_next_hears_when(counters: Counters) -> None:
    rates = [counters.count("ten", 3, START + 10) for _ in range(4)]
    assert [(rate.allowed, rate.remaining) for rate in rates] == [(True, 2), (True, 1), (True, 0), (False, 0)]
    wait = rates[-1].retry_after
    assert not counters.count("ten", 3, START + 10 + wait - 1).allowed
    assert counters.count("ten", 3, START + 10 + wait).allowed
    assert counters.count("other", 3, START + 10).allowed


def test_both_kinds_of_counters_say_the_same_of_the_same_requests(redis_url: str) -> None:
    own, shared, chance = OwnCounters(), SharedCounters(redis_url), random.Random(0)
    now = START
    for _ in range(300):
        now += chance.choice([0.0, 0.3, 2.0, 15.0]) + (130 if chance.random() < 0.02 else 0)
        assert own.count("ten", 10, now) == shared.count("ten", 10, now)


def test_a_limit_of_none_lets_nobody_in_and_says_so(counters: Counters) -> None:
    rates = [counters.count("ten", most, START + second) for second, most in enumerate([0, 2, 0, 0])]
    assert [rate.allowed for rate in rates] == [False, True, False, False]
    assert all(rate.retry_after > 0 for rate in rates if not rate.allowed)


@pytest.mark.parametrize("most", [1, 7, 60])
def test_a_steady_stream_gets_what_is_allowed_and_no_more(most: int) -> None:
    own = OwnCounters()
    steps = 10 * 60 * 4
    let_in = [step for step in range(steps) if own.count("ten", most, START + step / 4).allowed]
    assert 9 * most <= len(let_in) <= 10 * most + 1


def test_whoever_waits_as_told_is_let_in(counters: Counters) -> None:
    now = START + 31
    for _ in range(12):
        rate = counters.count("ten", 4, now)
        if not rate.allowed:
            assert rate.retry_after > 0
            now += rate.retry_after
            assert counters.count("ten", 4, now).allowed


def test_processes_that_fetch_many_at_once_do_not_overshoot(redis_url: str) -> None:
    processes = [SharedCounters(redis_url) for _ in range(3)]
    rates = [processes[number % 3].count("ten", 500, START) for number in range(600)]
    let_in = sum(rate.allowed for rate in rates)
    assert 500 - 3 * 10 <= let_in <= 500  # each may keep a fiftieth that it has not given out
    assert [rate.remaining for rate in rates[:3]] == [499, 489, 479]


def test_threads_at_once_do_not_overshoot(counters: Counters) -> None:
    with ThreadPoolExecutor(8) as pool:
        rates = list(pool.map(lambda _: counters.count("ten", 20, START), range(60)))
    assert sum(rate.allowed for rate in rates) == 20


def test_clients_of_the_hub_understand_the_headers() -> None:
    rate = Rate(allowed=False, most=500, remaining=0, reset=60, retry_after=55)
    read = parse_ratelimit_headers({"ratelimit": rate.state, "ratelimit-policy": rate.policy})
    assert read is not None
    assert (read.remaining, read.reset_in_seconds, read.limit, read.window_seconds) == (0, 55, 500, 60)


@pytest.fixture
def limited(tmp_path: Path) -> tuple[Database, str]:
    """A database with a tenant of five requests a minute."""
    url = f"sqlite:///{tmp_path / 'publisher.db'}"
    migrate.upgrade(url)
    database = Database(url)
    with database.write() as session:
        tenant = keys.add_tenant(session, "team")
        quotas.set_limit(session, tenant, REQUESTS_PER_MINUTE, 5)
    return database, tenant.id


def admitted(limiter: RateLimiter, tenant_id: str) -> bool:
    """As one request of its own."""
    outcome: list[bool] = []

    def ask() -> None:
        origin.open_request("req", None)
        try:
            limiter.admit(tenant_id)
            limiter.admit(tenant_id)  # looked up twice, counted once
            outcome.append(True)
        except TooManyRequests:
            outcome.append(False)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return outcome[0]


def still() -> float:
    return START


def test_several_processes_with_redis_count_together(limited: tuple[Database, str], redis_url: str) -> None:
    database, tenant_id = limited
    settings = Settings(broker_url=redis_url)
    processes = [RateLimiter(database, settings, still) for _ in range(2)]
    assert [admitted(processes[number % 2], tenant_id) for number in range(6)] == [True] * 5 + [False]


def test_while_redis_is_away_each_counts_for_itself(limited: tuple[Database, str]) -> None:
    database, tenant_id = limited
    limiter = RateLimiter(database, Settings(broker_url=f"redis://127.0.0.1:{free_port()}/0"), still)
    assert [admitted(limiter, tenant_id) for _ in range(6)] == [True] * 5 + [False]


def test_without_a_limit_nothing_is_counted(limited: tuple[Database, str]) -> None:
    database, _ = limited
    with database.write() as session:
        other = keys.add_tenant(session, "other").id
        quotas.set_limit(session, session.get_one(Tenant, other), REQUESTS_PER_MINUTE, None)
    limiter = RateLimiter(database, Settings(), still)
    origin.open_request("req", None)
    limiter.admit(other)
    assert origin.current().rate is None
