"""Workers as everybody sees them; a test plays them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import delete

from publisher.store.models import Worker
from tests.api.conftest import Body, RunningApi, created, recipe, refused
from tests.jobs import rows


@pytest.fixture(autouse=True)
def fleet(api: RunningApi) -> Iterator[None]:
    """Two workers; other tests' API has none."""
    rows.add_worker(api.database, "small", 2**16)
    rows.add_worker(api.database, "gpu", 2**36, kind="gpu", device="cuda:0 (H100)", free_disk_bytes=2**40, host="h")
    yield
    with api.database.write() as session:
        session.execute(delete(Worker))


def states(client: httpx.Client) -> dict[str, str]:
    return {worker["id"]: worker["state"] for worker in client.get("/v1/workers").json()["items"]}


def test_workers_say_what_they_hold_and_whether_they_are_at_work(
    api: RunningApi, client: httpx.Client, stranger: httpx.Client, variant_body: Body
) -> None:
    job_id = created(client.post("/v1/variants", json=variant_body))["job"]["id"]
    rows.claim(api.database, job_id, "gpu")
    rows.last_seen(api.database, "small", 3600)
    assert states(client) == {"gpu": "busy", "small": "away"}
    answer = stranger.get("/v1/workers")
    assert job_id not in answer.text
    worker = answer.json()["items"][0]
    assert (worker["kind"], worker["memory_bytes"], worker["devices"]) == ("gpu", 2**36, 1)
    assert (worker["free_disk_bytes"], worker["host"]) == (2**40, "h")
    assert worker["queues"][:3] == ["cpu", "1", "2"]
    client.post(f"/v1/jobs/{job_id}/cancel")


def test_workers_are_for_those_with_a_key(api: RunningApi) -> None:
    refused(httpx.get(f"{api.url}/v1/workers"), 401)


def test_a_plan_says_what_it_needs_and_which_workers_hold_it(client: httpx.Client, base_model: Body) -> None:
    plan = client.post("/v1/plans", json={"base_model_id": base_model["id"], "recipe": recipe()}).json()
    needs = plan["needs"]
    assert needs["gpu_bytes"] == max(stage["gpu_bytes"] for stage in needs["stages"].values()) > 2**16
    assert needs["gpu"] is True
    assert {worker["id"]: (worker["holds"], worker["takes"]) for worker in plan["workers"]} == {
        "small": (False, False),
        "gpu": (True, True),
    }
    assert plan["missing"] is None


def test_a_plan_that_no_worker_holds_says_what_is_missing(
    api: RunningApi, client: httpx.Client, base_model: Body
) -> None:
    rows.last_seen(api.database, "gpu", 3600)
    plan = client.post("/v1/plans", json={"base_model_id": base_model["id"], "recipe": recipe()}).json()
    assert "the largest worker holds 0.0" in plan["missing"]


def test_a_variant_s_priority_is_its_job_s(client: httpx.Client, variant_body: Body) -> None:
    answer = created(client.post("/v1/variants", json=variant_body | {"priority": 7}))
    assert answer["job"]["priority"] == 7
    assert created(client.post("/v1/variants", json=variant_body))["job"]["priority"] == 0
    refused(client.post("/v1/variants", json=variant_body | {"priority": 101}), 422, "priority")


def test_a_job_tells_its_place_and_when_it_is_expected(client: httpx.Client, variant_body: Body) -> None:
    # before all that other tests left in the queue, among it what nothing is known of
    jobs = [created(client.post("/v1/variants", json=variant_body | {"priority": 100}))["job"]["id"] for _ in range(2)]
    answers = [client.get(f"/v1/jobs/{job_id}") for job_id in jobs]
    assert [answer.status_code for answer in answers] == [200, 200], answers[-1].text
    first, second = (answer.json() for answer in answers)
    assert second["queue_position"] == first["queue_position"] + 1
    assert first["expected_start"] < first["expected_end"] <= second["expected_start"] < second["expected_end"]
    assert first["needs"]["gpu"] is True
    for job_id in jobs:
        client.post(f"/v1/jobs/{job_id}/cancel")
    over = client.get(f"/v1/jobs/{jobs[0]}").json()
    assert over["queue_position"] is over["expected_start"] is over["expected_end"] is None


def test_a_request_of_before_is_the_same_with_todays_defaults(client: httpx.Client, variant_body: Body) -> None:
    key = {"Idempotency-Key": "once"}
    first = created(client.post("/v1/variants", json=variant_body, headers=key))
    again = client.post("/v1/variants", json=variant_body | {"priority": 0}, headers=key)
    assert again.json()["id"] == first["id"]
    refused(client.post("/v1/variants", json=variant_body | {"priority": 1}, headers=key), 409)
