"""The event stream: every event once, in order, however often the connection breaks, and nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from publisher.client.client import Client
from publisher.client.events import Event, parse_events
from publisher.jobs import leases, transitions
from publisher.jobs.events import NewEvent
from publisher.jobs.leases import Lease
from publisher.store.states import EventKind
from tests.api.conftest import Body, RunningApi, Tenant, created, recipe, serve_api, write_corpus
from tests.jobs.rows import claim
from tests.models import tiny_llama


@pytest.fixture
def job_id(client: httpx.Client, variant_body: Body) -> str:
    return str(created(client.post("/v1/variants", json=variant_body))["job"]["id"])


def report(api: RunningApi, lease: Lease, *messages: str) -> None:
    with api.database.write() as session:
        leases.report(session, lease, [NewEvent(EventKind.LOG, {"message": text}) for text in messages], "align", {})


def finish(api: RunningApi, lease: Lease) -> None:
    publication = {"endpoint": "http://x", "repo_id": "a/b", "commit": "c", "url": "u"}
    with api.database.write() as session:
        transitions.succeed(session, lease, publication, {}, [])


def read(client: httpx.Client, job_id: str, **headers: str) -> list[Event]:
    """The whole stream, to its end."""
    with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(parse_events(response.iter_lines()))


def test_a_finished_job_is_told_from_its_start_and_the_stream_ends(
    api: RunningApi, client: httpx.Client, job_id: str
) -> None:
    lease = claim(api.database, job_id)
    report(api, lease, "one", "two\nlines")
    finish(api, lease)
    events = read(client, job_id)
    assert [event.id for event in events] == [1, 2, 3, 4, 5]
    assert [event.kind for event in events] == ["state", "state", "log", "log", "state"]
    assert [event.data["state"] for event in events if event.kind == "state"] == ["queued", "running", "succeeded"]
    assert events[3].data["message"] == "two\nlines"


def test_a_stream_goes_on_after_the_last_event_id(api: RunningApi, client: httpx.Client, job_id: str) -> None:
    lease = claim(api.database, job_id)
    report(api, lease, *map(str, range(700)))  # more than one read brings
    finish(api, lease)
    whole = read(client, job_id)
    for last in (1, 350, len(whole) - 1):
        assert read(client, job_id, **{"Last-Event-ID": str(last)}) == whole[last:]
    with client.stream("GET", f"/v1/jobs/{job_id}/events", params={"after": 350}) as response:
        assert list(parse_events(response.iter_lines())) == whole[350:]


def test_nothing_new_of_a_finished_job_tells_browsers_to_stop(
    api: RunningApi, client: httpx.Client, job_id: str
) -> None:
    client.post(f"/v1/jobs/{job_id}/cancel")
    last = read(client, job_id)[-1]
    assert last.data["state"] == "cancelled"
    for seen in (last.id, last.id + 100):
        answer = client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": str(seen)})
        assert answer.status_code == 204


def test_a_bad_event_id_is_refused(client: httpx.Client, job_id: str) -> None:
    assert client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "x"}).status_code == 422


def test_a_retried_job_streams_on(api: RunningApi, client: httpx.Client, job_id: str) -> None:
    client.post(f"/v1/jobs/{job_id}/cancel")
    last = read(client, job_id)[-1].id
    client.post(f"/v1/jobs/{job_id}/retry")
    client.post(f"/v1/jobs/{job_id}/cancel")
    states = [event.data["state"] for event in read(client, job_id, **{"Last-Event-ID": str(last)})]
    assert states == ["queued", "cancelled"]


def broken_reads(tenant: Tenant, job_id: str, every: int) -> Iterator[Event]:
    """Follow the job and cut the connection after every few events."""
    last = 0
    with tenant.client() as client:
        while True:
            headers = {"Last-Event-ID": str(last)}
            with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response:
                if response.status_code == httpx.codes.NO_CONTENT:
                    return
                for number, event in enumerate(parse_events(response.iter_lines()), 1):
                    last = event.id
                    yield event
                    if number == every:
                        break


def test_nothing_is_lost_or_repeated_when_connections_break(api: RunningApi, tenant: Tenant, job_id: str) -> None:
    lease = claim(api.database, job_id)

    def work() -> None:
        for number in range(40):
            report(api, lease, str(number), "again")
        finish(api, lease)

    worker = threading.Thread(target=work)
    worker.start()
    events = list(broken_reads(tenant, job_id, every=7))
    worker.join()
    assert [event.id for event in events] == list(range(1, 2 + 80 + 1 + 1))
    assert events[-1].data["state"] == "succeeded"


def test_an_event_arrives_while_the_stream_is_open(api: RunningApi, tenant: Tenant, job_id: str) -> None:
    lease = claim(api.database, job_id)
    with Client(api.url, tenant.key) as service:
        stream = service.follow_job(job_id)
        assert [next(stream).kind for _ in range(2)] == ["state", "state"]
        report(api, lease, "now")
        asked = time.monotonic()
        assert next(stream).data["message"] == "now"
        assert time.monotonic() - asked < 5
        finish(api, lease)
        assert next(stream).data["state"] == "succeeded"


def test_many_listeners_do_not_hold_up_requests(api: RunningApi, tenant: Tenant, job_id: str) -> None:
    lease = claim(api.database, job_id)
    limits = httpx.Limits(max_connections=None)
    with (
        ExitStack() as stack,
        httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {tenant.key}"}, limits=limits) as client,
    ):
        streams = [stack.enter_context(client.stream("GET", f"/v1/jobs/{job_id}/events")) for _ in range(120)]
        lines = [parse_events(stream.iter_lines()) for stream in streams]
        for listener in lines:
            assert next(listener).id == 1
        asked = time.monotonic()
        for _ in range(10):
            assert client.get(f"/v1/jobs/{job_id}").is_success
        assert time.monotonic() - asked < 5
        report(api, lease, "to all")
        finish(api, lease)
        for listener in lines:
            assert [event.id for event in listener] == [2, 3, 4]


def test_streams_work_on_postgresql(tmp_path: Path, postgresql_url: str) -> None:
    with serve_api(tmp_path, database_url=postgresql_url) as api:
        tenant = api.tenant()
        with tenant.client() as client:
            base = created(client.post("/v1/base-models", json={"path": str(tiny_llama(api.roots / "tiny"))}))
            path = write_corpus(api.roots / "novel.jsonl")
            created(client.post("/v1/corpora", json={"name": "novel", "path": str(path)}))
            body = {"base_model_id": base["id"], "recipe": recipe(), "publish": {"repo_id": f"{tenant.name}/x"}}
            job_id = created(client.post("/v1/variants", json=body))["job"]["id"]
            lease = claim(api.database, job_id)
            report(api, lease, "one")
            finish(api, lease)
            assert [event.id for event in read(client, job_id)] == [1, 2, 3, 4]
            assert client.get("/v1/jobs").json()["items"][0]["state"] == "succeeded"
