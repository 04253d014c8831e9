"""Sweeps as seen from outside: all variants or none, in order, once for each key."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from publisher.jobs import transitions
from publisher.manifest.manifest import Manifest
from tests.api.conftest import Body, RunningApi, Tenant, created, recipe, refused
from tests.jobs.rows import claim, waiting_messages
from tests.manifest import contents


@pytest.fixture
def body(tenant: Tenant, base_model: Body, corpus: Body) -> Body:
    """Three ratios."""
    return {
        "base_model_id": base_model["id"],
        "recipe": recipe(),
        "vary": {"pruning.ratio": [0.25, 0.5, 0.75]},
        "publish": {"repo_id": f"{tenant.name}/tiny-{{ratio}}", "private": True},
        "labels": {"study": "ratios"},
    }


def post(client: httpx.Client, body: Body, **changes: Any) -> httpx.Response:
    return client.post("/v1/sweeps", json=body | changes)


def nothing_was_made(client: httpx.Client) -> bool:
    return not any(client.get(f"/v1/{path}").json()["items"] for path in ("sweeps", "variants", "jobs"))


def test_a_sweep_makes_a_variant_for_each_combination(client: httpx.Client, tenant: Tenant, body: Body) -> None:
    sweep = created(post(client, body))
    assert [one["values"] for one in sweep["variants"]] == [{"pruning.ratio": ratio} for ratio in (0.25, 0.5, 0.75)]
    assert [one["repo_id"] for one in sweep["variants"]] == [f"{tenant.name}/tiny-{r}" for r in ("0.25", "0.5", "0.75")]
    assert sweep["states"] == {"queued": 3}
    assert 1 < sweep["variants"][0]["reduction"] < sweep["variants"][1]["reduction"] < sweep["variants"][2]["reduction"]
    for one in sweep["variants"]:
        variant = client.get(f"/v1/variants/{one['id']}").json()
        assert variant["recipe"]["pruning"]["ratio"] == one["values"]["pruning.ratio"]
        assert (variant["sweep_id"], variant["labels"], variant["publish"]["private"]) == (
            *(sweep["id"], {"study": "ratios"}, True),
        )
    assert client.get(f"/v1/sweeps/{sweep['id']}").json() == sweep


def test_jobs_wait_in_the_order_of_the_variants(api: RunningApi, client: httpx.Client, body: Body) -> None:
    seeds = {"seed": list(range(40))}
    sweep = created(
        post(client, body, vary=seeds, publish={"repo_id": body["publish"]["repo_id"].replace("ratio", "n")})
    )
    job_ids = [one["job_id"] for one in sweep["variants"]]
    assert job_ids == sorted(job_ids)
    assert [one["values"]["seed"] for one in sweep["variants"]] == list(range(40))
    assert [job["id"] for job in client.get("/v1/jobs", params={"sweep_id": sweep["id"]}).json()["items"]] == job_ids[
        ::-1
    ]
    assert {client.get(f"/v1/jobs/{job_id}").json()["state"] for job_id in job_ids} == {"queued"}
    assert waiting_messages(api.settings).total() >= 40


def test_one_variant_that_could_only_fail_stops_all(client: httpx.Client, tenant: Tenant, body: Body) -> None:
    message = refused(post(client, body, vary={"pruning.ratio": [0.5, 2]}), 422, "vary.pruning.ratio")
    assert "with pruning.ratio 2" in message
    names = [{"corpora": [name]} for name in ("novel", "unknown")]
    publish = {"repo_id": f"{tenant.name}/x-{{n}}"}
    message = refused(post(client, body, vary={"evaluation": names}, publish=publish), 422)
    assert 'with evaluation {"corpora": ["unknown"]}' in message
    assert "there is no corpus 'unknown'" in message
    assert nothing_was_made(client)


def test_names_are_filled_in_or_listed(client: httpx.Client, tenant: Tenant, body: Body) -> None:
    vary = {"pruning.ratio": [0.5], "quantization.scheme": ["none", "nf4"]}
    name = f"{tenant.name}/x-{{pruning.ratio}}-{{scheme}}-{{n}}"
    sweep = created(post(client, body, vary=vary, publish={"repo_id": name}))
    assert [one["repo_id"] for one in sweep["variants"]] == [
        f"{tenant.name}/x-0.5-none-1",
        f"{tenant.name}/x-0.5-nf4-2",
    ]
    listed = [f"{tenant.name}/{name}" for name in "abc"]
    sweep = created(post(client, body, publish={"repo_id": listed}))
    assert [one["repo_id"] for one in sweep["variants"]] == listed


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("org/same", "several variants would be published to org/same. Put what differs"),
        ("org/{seed}", "nothing is called {seed} here. There are: {n}, {ratio}, {pruning.ratio}."),
        (["org/a", "org/b"], "there are 2 repositories for 3 variants"),
        (["org/a", "org/b", "org/a"], "several variants would be published to org/a"),
        ("{ratio}", "not of the form namespace/name"),
    ],
)
def test_names_that_are_not_one_for_each_are_refused(client: httpx.Client, body: Body, name: Any, said: str) -> None:
    assert said in refused(post(client, body, publish={"repo_id": name}), 422, "publish.repo_id")
    assert nothing_was_made(client)


def test_the_same_key_and_body_is_the_same_sweep(client: httpx.Client, body: Body) -> None:
    key = {"Idempotency-Key": "once"}
    first = created(client.post("/v1/sweeps", json=body, headers=key))
    again = client.post("/v1/sweeps", json=body, headers=key)
    assert again.json() == first
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(client.get("/v1/variants").json()["items"]) == 3
    other = body | {"vary": {"pruning.ratio": [0.75, 0.5, 0.25]}}
    refused(client.post("/v1/sweeps", json=other, headers=key), 409, "Idempotency-Key")


def test_what_was_measured_is_beside_what_was_varied(api: RunningApi, client: httpx.Client, body: Body) -> None:
    sweep = created(post(client, body))
    one = sweep["variants"][1]
    lease = claim(api.database, one["job_id"])
    manifest = Manifest.parse(contents.content(evaluation=contents.evaluation(contents.certificate())), "test")
    place = {"endpoint": "http://hub", "repo_id": one["repo_id"], "commit": "c" * 40, "url": "http://hub/x"}
    with api.database.write() as session:
        transitions.succeed(session, lease, place, manifest.model_dump(mode="json"), [])
    found = client.get(f"/v1/sweeps/{sweep['id']}").json()
    assert found["states"] == {"queued": 2, "succeeded": 1}
    assert found["variants"][1]["publication"]["commit"] == "c" * 40
    assert found["variants"][1]["bytes_reduction"] == pytest.approx(manifest.bytes.base / manifest.bytes.checkpoint)
    certificate = manifest.evaluation and manifest.evaluation.certificate
    assert certificate is not None
    assert found["variants"][1]["gain"] == pytest.approx(certificate.base / certificate.recovered)
    assert found["variants"][1]["verdict"] == certificate.verdict
    assert found["variants"][0]["gain"] is None


def test_a_sweep_is_cancelled_as_a_whole_and_what_ended_stays(
    api: RunningApi, client: httpx.Client, stranger: httpx.Client, body: Body
) -> None:
    sweep = created(post(client, body))
    first, second, third = (one["job_id"] for one in sweep["variants"])
    lease = claim(api.database, first)
    with api.database.write() as session:
        transitions.succeed(session, lease, {"endpoint": "e", "repo_id": "r", "commit": "c", "url": "u"}, {}, [])
    claim(api.database, second)
    refused(stranger.post(f"/v1/sweeps/{sweep['id']}/cancel"), 404)
    cancelled = client.post(f"/v1/sweeps/{sweep['id']}/cancel").json()
    assert [one["state"] for one in cancelled["variants"]] == ["succeeded", "cancelling", "cancelled"]
    assert client.post(f"/v1/sweeps/{sweep['id']}/cancel").json() == cancelled
    assert third == cancelled["variants"][2]["job_id"]


def test_sweeps_are_listed_with_their_states_and_go_when_their_variants_have(client: httpx.Client, body: Body) -> None:
    first, second = created(post(client, body)), created(post(client, body))
    client.post(f"/v1/sweeps/{first['id']}/cancel")
    listed = client.get("/v1/sweeps").json()["items"]
    assert [(item["id"], item["states"]) for item in listed] == [
        (second["id"], {"queued": 3}),
        (first["id"], {"cancelled": 3}),
    ]
    assert first["variants"][0]["id"] in refused(client.delete(f"/v1/sweeps/{first['id']}"), 409)
    for one in first["variants"]:
        assert client.delete(f"/v1/variants/{one['id']}").status_code == 204
    assert client.delete(f"/v1/sweeps/{first['id']}").status_code == 204
    assert [item["id"] for item in client.get("/v1/sweeps").json()["items"]] == [second["id"]]


def test_somebody_elses_sweep_is_not_found(client: httpx.Client, stranger: httpx.Client, body: Body) -> None:
    sweep = created(post(client, body))
    for method in ("GET", "DELETE"):
        refused(stranger.request(method, f"/v1/sweeps/{sweep['id']}"), 404)
    assert stranger.get("/v1/variants", params={"sweep_id": sweep["id"]}).json()["items"] == []
