"""A Hub that does not answer holds up those who ask it, and nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest

from publisher.api.outside import WAITING_PER_TENANT, Busy, Lane, NoAnswer, TooManyAtOnce
from publisher.errors import NotFound
from tests.api.conftest import RunningApi, Tenant, refused, serve_api
from tests.api.held_hub import HeldHub, held_hub

#: more than the threads that serve requests
MANY = 60


@pytest.fixture
def hub() -> Iterator[HeldHub]:
    with held_hub() as hub:
        yield hub


@pytest.fixture
def api(tmp_path: Path, hub: HeldHub) -> Iterator[RunningApi]:
    with serve_api(tmp_path, base_model_endpoint=hub.url, outside_calls=6) as api:
        yield api


def register(tenant: Tenant, number: int) -> httpx.Response:
    with tenant.client() as client:
        return client.post("/v1/base-models", json={"repo_id": f"org/model-{number}"})


def look_at(tenant: Tenant, number: int) -> httpx.Response:
    with tenant.client() as client:
        return client.post("/v1/corpora", json={"name": f"c{number}", "dataset": f"org/text-{number}"})


@pytest.mark.parametrize("ask", [register, look_at])
def test_while_a_hub_keeps_one_tenant_waiting_all_else_is_answered(api: RunningApi, hub: HeldHub, ask: object) -> None:
    tenant, other = api.tenant(), api.tenant()
    assert callable(ask)
    with ThreadPoolExecutor(MANY) as threads:
        calls = [threads.submit(ask, tenant, number) for number in range(MANY)]
        hub.wait_for(4)
        for answer in answers(calls, MANY - 4 - WAITING_PER_TENANT):
            assert "of yours are under way" in refused(answer, 429)
            assert int(answer.headers["Retry-After"]) > 0
        assert httpx.get(f"{api.url}/healthz").is_success
        assert httpx.get(f"{api.url}/readyz").json()["status"] == "ready"
        assert "csrf" in httpx.get(f"{api.url}/login").text
        with tenant.client() as client:
            assert client.get("/v1/jobs").is_success
        theirs = threads.submit(ask, other, MANY)
        hub.wait_for(5)  # not behind those of the first
        assert hub.asked == 5
        hub.release()
        refused(theirs.result(), 422)
    assert sorted(call.result().status_code for call in calls) == [422] * (4 + WAITING_PER_TENANT) + [429] * 24


def answers(calls: list[Future[httpx.Response]], number: int) -> list[httpx.Response]:
    """The first `number` answers, while the others are still waited for."""
    waiting, done = set(calls), list[httpx.Response]()
    while len(done) < number:
        ended, waiting = wait(waiting, 60, FIRST_COMPLETED)
        assert ended, f"only {len(done)} were answered"
        done += [call.result() for call in ended]
    return done


@pytest.mark.parametrize("ask", [register, look_at])
def test_a_request_is_answered_in_time_and_names_the_hub(tmp_path: Path, hub: HeldHub, ask: object) -> None:
    assert callable(ask)
    with serve_api(tmp_path, base_model_endpoint=hub.url, outside_seconds=0.5) as api:
        answer = ask(api.tenant(), 1)
        assert hub.url in refused(answer, 503)


def test_what_goes_on_after_its_answer_keeps_its_place() -> None:
    hold = threading.Event()

    async def scene() -> None:
        lane = Lane("calls", at_once=2, per_tenant=1, seconds=0.05)
        with pytest.raises(NoAnswer, match=r"the Hub did not answer within 0\.05 s"):
            await lane.run("one", "the Hub", hold.wait)
        with pytest.raises(Busy, match="none of those before"):
            await lane.run("one", "the Hub", lambda: None)
        assert await lane.run("another", "the Hub", lambda: 1) == 1
        hold.set()

    asyncio.run(scene())


def test_beyond_a_number_all_tenants_are_told_to_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.api.outside.WAITING", 1)
    hold = threading.Event()

    async def scene() -> None:
        lane = Lane("calls", at_once=1, per_tenant=1, seconds=60)
        calls = [asyncio.create_task(lane.run(tenant, "the Hub", hold.wait)) for tenant in ("one", "two")]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="2 calls are under way"):
            await lane.run("three", "the Hub", lambda: None)
        hold.set()
        assert await asyncio.gather(*calls) == [True, True]
        assert await lane.run("three", "the Hub", lambda: 3) == 3

    asyncio.run(scene())


def test_what_the_work_raises_is_raised() -> None:
    def work() -> None:
        raise NotFound("nothing there.")

    async def scene() -> None:
        lane = Lane("calls", at_once=1, per_tenant=1, seconds=60)
        for _ in range(40):
            with pytest.raises(NotFound):
                await lane.run("one", "the Hub", work)
        with pytest.raises(TooManyAtOnce):
            await asyncio.gather(*(lane.run("one", "the Hub", lambda: 1) for _ in range(40)))

    asyncio.run(scene())
