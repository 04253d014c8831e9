"""A tenant sees its quotas, and is told which one it exceeds."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from publisher.store import quotas
from publisher.store.models import Tenant as TenantRow
from publisher.store.quotas import JOBS_QUEUED, JOBS_RUNNING, STORED_BYTES
from tests.api.conftest import Body, RunningApi, Tenant, created, refused


@pytest.fixture
def one_queued(api: RunningApi, tenant: Tenant) -> None:
    """The tenant may have one job in the queue."""
    with api.database.write() as session:
        quotas.set_limit(session, session.get_one(TenantRow, tenant.id), JOBS_QUEUED, 1)


def shown(client: httpx.Client) -> dict[str, tuple[int | None, int]]:
    items: list[Any] = client.get("/v1/quotas").raise_for_status().json()["items"]
    return {item["name"]: (item["limit"], item["used"]) for item in items}


@pytest.mark.usefixtures("one_queued")
def test_a_variant_beyond_the_quota_is_refused_and_leaves_nothing(client: httpx.Client, variant_body: Body) -> None:
    first = created(client.post("/v1/variants", json=variant_body, headers={"Idempotency-Key": "k"}))
    assert shown(client)[JOBS_QUEUED.name] == (1, 1)
    answer = client.post("/v1/variants", json=variant_body)
    said = refused(answer, 429)
    assert "jobs_queued allows 1" in said
    assert "operator" in said
    assert answer.headers["Retry-After"] == "30"
    assert answer.json()["type"] == "urn:loram:problem:quota-exceeded"
    assert [row["id"] for row in client.get("/v1/variants").json()["items"]] == [first["id"]]
    # what was asked for before is answered all the same
    again = client.post("/v1/variants", json=variant_body, headers={"Idempotency-Key": "k"})
    assert created(again)["id"] == first["id"]


@pytest.mark.usefixtures("one_queued")
def test_a_sweep_is_made_whole_or_not_at_all(client: httpx.Client, tenant: Tenant, variant_body: Body) -> None:
    publish = variant_body["publish"] | {"repo_id": f"{tenant.name}/tiny-{{ratio}}"}
    sweep = {**variant_body, "publish": publish, "vary": {"pruning.ratio": [0.4, 0.5]}}
    refused(client.post("/v1/sweeps", json=sweep), 429)
    assert client.get("/v1/variants").json()["items"] == client.get("/v1/sweeps").json()["items"] == []


@pytest.mark.usefixtures("one_queued")
def test_resuming_and_trying_again_are_refused_too(client: httpx.Client, variant_body: Body) -> None:
    jobs = []
    for act in ("pause", "cancel"):
        jobs.append(created(client.post("/v1/variants", json=variant_body))["job"]["id"])
        client.post(f"/v1/jobs/{jobs[-1]}/{act}").raise_for_status()
    created(client.post("/v1/variants", json=variant_body))
    for job_id, act in zip(jobs, ("resume", "retry"), strict=True):
        refused(client.post(f"/v1/jobs/{job_id}/{act}"), 429)


def test_without_limits_what_there_is_is_shown(client: httpx.Client, variant_body: Body) -> None:
    created(client.post("/v1/variants", json=variant_body))
    assert shown(client)[JOBS_QUEUED.name] == (None, 1)
    assert shown(client)[JOBS_RUNNING.name] == (None, 0)


def test_a_variant_whose_checkpoint_cannot_fit_is_refused(
    api: RunningApi, tenant: Tenant, client: httpx.Client, variant_body: Body
) -> None:
    with api.database.write() as session:
        quotas.set_limit(session, session.get_one(TenantRow, tenant.id), STORED_BYTES, 1000)
    answer = client.post("/v1/variants", json=variant_body)
    assert "stored_bytes" in refused(answer, 507)
    assert client.get("/v1/variants").json()["items"] == []
    assert shown(client)[STORED_BYTES.name] == (1000, 0)
