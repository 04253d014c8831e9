"""The stream of all of a tenant's jobs: each event once, in order, with its job's id, and nobody else's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from publisher.client.events import Event, parse_events
from publisher.jobs import leases
from publisher.jobs.events import NewEvent
from publisher.jobs.leases import Lease
from publisher.store.states import EventKind
from tests.api.conftest import Body, RunningApi, Tenant, created, refused, serve_api
from tests.jobs.rows import claim, metric
from tests.servers import wait_until


@pytest.fixture
def held(api: RunningApi, client: httpx.Client, variant_body: Body) -> list[Lease]:
    """Three jobs that run: six events."""
    jobs = [created(client.post("/v1/variants", json=variant_body))["job"]["id"] for _ in range(3)]
    return [claim(api.database, job) for job in jobs]


def report(api: RunningApi, lease: Lease, *told: NewEvent) -> None:
    with api.database.write() as session:
        leases.report(session, lease, told, "align", {})


def log(text: str) -> NewEvent:
    return NewEvent(EventKind.LOG, {"message": text})


def take(tenant: Tenant, most: int, after: int | None = 0, **query: object) -> list[Event]:
    """The first events of a stream."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with tenant.client() as client, client.stream("GET", "/v1/events", params=query, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = parse_events(response.iter_lines())
        return [next(events) for _ in range(most)]


def test_all_jobs_are_told_in_one_order_with_their_ids(api: RunningApi, tenant: Tenant, held: list[Lease]) -> None:
    for lease in (held[2], held[0]):
        report(api, lease, log(lease.job_id))
    events = take(tenant, 8)
    assert [event.id for event in events] == [1, 2, 3, 4, 5, 6, 7, 8]
    ids = [lease.job_id for lease in held]
    assert [event.data["job_id"] for event in events] == [*ids, *ids, ids[2], ids[0]]
    assert [event.data["seq"] for event in events] == [1, 1, 1, 2, 2, 2, 3, 3]
    assert events[6].data["message"] == ids[2]


def test_without_an_id_the_stream_begins_now(api: RunningApi, tenant: Tenant, held: list[Lease]) -> None:
    with tenant.client() as client, client.stream("GET", "/v1/events") as response:
        lines = response.iter_lines()
        # where it begins is said before there is any event: who loses the connection then misses nothing, too
        assert [next(lines) for _ in range(3)] == ["retry: 1000", "id: 6", ""]
        report(api, held[0], log("now"))
        event = next(parse_events(lines))
        assert (event.id, event.data["message"]) == (7, "now")


def test_an_id_from_another_time_begins_now(api: RunningApi, tenant: Tenant, held: list[Lease]) -> None:
    """A database that was restored has lower numbers than its listeners know."""
    with tenant.client() as client, client.stream("GET", "/v1/events", params={"after": 10**9}) as response:
        lines = response.iter_lines()
        assert next(lines) == "retry: 1000"
        report(api, held[0], log("now"))
        assert next(parse_events(lines)).id == 7


def test_kinds_are_chosen_and_some_jobs_told_whole(api: RunningApi, tenant: Tenant, held: list[Lease]) -> None:
    for lease in held:
        report(api, lease, *[metric("loss", step, 1.0) for step in range(3)], log("x"))
    assert [event.kind for event in take(tenant, 9, kind=["state", "log"])] == ["state"] * 6 + ["log"] * 3
    chosen = take(tenant, 10, kind="state", all_of=held[1].job_id)
    assert [event.id for event in chosen] == [1, 2, 3, 4, 5, 6, 11, 12, 13, 14]
    with tenant.client() as client:
        refused(client.get("/v1/events", params={"kind": "noise"}), 422)


def test_nobody_elses_jobs_are_told(api: RunningApi, held: list[Lease]) -> None:
    stranger = api.tenant()
    with stranger.client() as client:
        with client.stream("GET", "/v1/events", params={"after": 0, "all_of": held[0].job_id}) as response:
            lines = response.iter_lines()
            assert next(lines) == "retry: 1000"
            report(api, held[0], log("mine"))
            _register(stranger, api)
            event = next(parse_events(lines))
        assert event.id == 1
        assert event.data["job_id"] == client.get("/v1/jobs").json()["items"][0]["id"]
    refused(httpx.get(f"{api.url}/v1/events"), 401)


def _register(tenant: Tenant, api: RunningApi) -> None:
    with tenant.client() as client:
        base = created(client.post("/v1/base-models", json={"path": str(api.roots / "tiny")}))
        pruning = {"criterion": "random", "ratio": 0.5, "protect_first": 1, "protect_last": 1}
        recipe = {"pruning": pruning, "alignment": None, "evaluation": None}
        publish = {"repo_id": f"{tenant.name}/x", "private": False}
        created(client.post("/v1/variants", json={"base_model_id": base["id"], "recipe": recipe, "publish": publish}))


def test_a_long_backlog_comes_whole(api: RunningApi, tenant: Tenant, held: list[Lease]) -> None:
    for start in range(0, 6000, 1000):
        report(api, held[start % 3], *[metric("loss", step, 1.0) for step in range(start, start + 1000)])
    assert [event.id for event in take(tenant, 6006)] == list(range(1, 6007))


def cut_off_reads(tenant: Tenant, every: int, last: int) -> Iterator[int]:
    """Follow and lose the connection after every few events."""
    seen = 0
    while seen < last:
        for event in take(tenant, min(every, last - seen), after=seen):
            seen = event.id
            yield seen


def test_nothing_is_lost_or_repeated_when_connections_break(api: RunningApi, tenant: Tenant, held: list[Lease]) -> None:
    def work(lease: Lease) -> None:
        for number in range(20):
            report(api, lease, log(str(number)), log("again"))

    workers = [threading.Thread(target=work, args=(lease,)) for lease in held]
    for worker in workers:
        worker.start()
    assert list(cut_off_reads(tenant, 11, 126)) == list(range(1, 127))
    for worker in workers:
        worker.join()


def test_a_revoked_key_stops_reading_streams_that_are_open(
    api: RunningApi, tenant: Tenant, client: httpx.Client, held: list[Lease]
) -> None:
    made = created(client.post("/v1/api-keys", json={"name": "short"}))
    headers = {"Authorization": f"Bearer {made['key']}"}
    addresses = ("/v1/events?after=0", f"/v1/jobs/{held[0].job_id}/events")
    with httpx.Client(base_url=api.url, headers=headers, timeout=20) as short:
        for address in addresses:
            with short.stream("GET", address) as response:
                events = parse_events(response.iter_lines())
                assert next(events).id == 1
        with short.stream("GET", addresses[0]) as one, short.stream("GET", addresses[1]) as other:
            assert client.delete(f"/v1/api-keys/{made['id']}").status_code == 204
            assert len(list(parse_events(one.iter_lines()))) == 6
            assert len(list(parse_events(other.iter_lines()))) == 2
        refused(short.get("/v1/events"), 401)


def test_a_tenant_has_so_many_streams_open_and_no_more(tmp_path: Path) -> None:
    with serve_api(tmp_path, event_streams_per_tenant=2) as api:
        tenant, other = api.tenant(), api.tenant()
        with tenant.client() as client, ExitStack() as streams:
            begun = [streams.enter_context(client.stream("GET", "/v1/events")).iter_lines() for _ in range(2)]
            for lines in begun:
                next(lines)
            answer = client.get("/v1/events")
            assert "2 event streams of your tenant are open" in refused(answer, 429)
            assert int(answer.headers["Retry-After"]) > 0
            assert client.get("/v1/jobs").is_success
            assert take(other, 0) == []
        with tenant.client() as client:
            wait_until(lambda: opens(client), "a stream that was closed to give back its place")


def opens(client: httpx.Client) -> bool:
    with client.stream("GET", "/v1/events") as response:
        return response.is_success
