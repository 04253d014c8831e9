"""Plans promise what pruning does, and create nothing."""

from __future__ import annotations

import httpx
import pytest

from tests.api.conftest import Body, RunningApi, Tenant, created, recipe, refused, write_corpus

# 4 layers of 32 × (32 + 16 + 16 + 32) attention, 3 × 32 × 48 MLP and 64 norm weights; 2 × 320 × 32 + 32 outside
BASE = 4 * (32 * 96 + 3 * 32 * 48 + 64) + 2 * 320 * 32 + 32
# the 2 layers in the middle lose half of the KV groups and of the neurons
LOST = 2 * (32 * 48 + 3 * 32 * 24)


def test_a_plan_counts_parameters_by_the_papers_rule(client: httpx.Client, base_model: Body) -> None:
    plan = client.post("/v1/plans", json={"base_model_id": base_model["id"], "recipe": recipe()}).json()
    assert plan["parameters"] == {"base": BASE, "pruned": BASE - LOST}
    assert set(plan["minutes"]) == {
        "fetch", "calibrate", "prune", "align", "quantize", "evaluate", "package", "publish",
    }  # fmt: skip


def test_a_plan_of_masks_counts_kept_weights(client: httpx.Client, base_model: Body) -> None:
    """Half of the weights of the 2 layers in the middle, none of norms and embeddings."""
    asked = recipe(method="unstructured", criterion="wanda")
    plan = client.post("/v1/plans", json={"base_model_id": base_model["id"], "recipe": asked}).json()
    assert plan["parameters"] == {"base": BASE, "pruned": BASE - 32 * 96 - 3 * 32 * 48}
    assert plan["widths"] == plan["base_widths"]


def test_a_plan_tells_that_a_certificate_will_be_inconclusive(
    api: RunningApi, client: httpx.Client, base_model: Body
) -> None:
    body = {"base_model_id": base_model["id"], "recipe": recipe()}
    for documents, said in ((80, False), (70, True)):
        path = write_corpus(api.roots / f"{documents}.jsonl", documents)
        created(client.post("/v1/corpora", json={"name": f"of-{documents}", "path": str(path)}))
        body["recipe"]["evaluation"]["corpora"] = [f"of-{documents}"]
        notes = client.post("/v1/plans", json=body).json()["notes"]
        assert any("will be inconclusive" in note and "holds out 7 documents" in note for note in notes) is said
    body["recipe"]["evaluation"]["corpora"] = ["not-registered-yet"]
    assert client.post("/v1/plans", json=body).is_success


@pytest.mark.parametrize(
    "change",
    [
        {"evaluation": {"corpora": ["not-registered-yet"]}},
        {"alignment": {"corpora": ["not-registered-yet"], "tokens": 8192}},
        {"evaluation": {"corpora": ["small"], "require_certificate": True}},
        {},
    ],
)
def test_a_plan_says_what_a_variant_would_be_refused_for(
    api: RunningApi, tenant: Tenant, client: httpx.Client, base_model: Body, change: Body
) -> None:
    for name, documents in (("small", 70), ("novel", 200)):
        path = write_corpus(api.roots / f"{name}.jsonl", documents)
        client.post("/v1/corpora", json={"name": name, "path": str(path)})
    asked = {"base_model_id": base_model["id"], "recipe": recipe() | change}
    told = client.post("/v1/plans", json=asked).json()["refused"]
    answer = client.post("/v1/variants", json=asked | {"publish": {"repo_id": f"{tenant.name}/variant"}})
    if answer.is_success:
        assert told is None
    else:
        message = refused(answer, 422, told["field"])
        assert told["message"] in message


def test_a_plan_creates_nothing(client: httpx.Client, base_model: Body) -> None:
    assert client.post("/v1/plans", json={"base_model_id": base_model["id"], "recipe": recipe()}).is_success
    assert client.get("/v1/variants").json()["items"] == client.get("/v1/jobs").json()["items"] == []


def test_more_protected_layers_than_layers_are_refused(client: httpx.Client, base_model: Body) -> None:
    body = {"base_model_id": base_model["id"], "recipe": recipe(protect_first=3)}
    message = refused(client.post("/v1/plans", json=body), 422, "recipe.pruning.protect_first")
    assert "none of the 4 decoder layers" in message


def test_an_unknown_base_model_is_not_found(client: httpx.Client, stranger: httpx.Client, base_model: Body) -> None:
    refused(client.post("/v1/plans", json={"base_model_id": "base_0", "recipe": recipe()}), 404)
    refused(stranger.post("/v1/plans", json={"base_model_id": base_model["id"], "recipe": recipe()}), 404)
