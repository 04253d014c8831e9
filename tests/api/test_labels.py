"""Labels and filters as seen from outside."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.conftest import Body, RunningApi, created, refused

LABELS = {"team": "search", "example.com/stage": "trial"}


def found(client: httpx.Client, path: str, **query: Any) -> list[str]:
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def test_labels_are_given_at_creation_and_shown_by_the_job(client: httpx.Client, variant_body: Body) -> None:
    variant = created(client.post("/v1/variants", json=variant_body | {"labels": LABELS}))
    other = created(client.post("/v1/variants", json=variant_body))
    assert variant["labels"] == variant["job"]["labels"] == LABELS
    assert other["labels"] == {}
    for label in ("team:search", "example.com/stage:trial"):
        assert found(client, "/v1/variants", label=label) == [variant["id"]]
        assert found(client, "/v1/jobs", label=label) == [variant["job"]["id"]]
    assert found(client, "/v1/variants", label=["team:search", "team:ads"]) == []
    assert found(client, "/v1/variants", label="team:") == []


@pytest.mark.parametrize("path", ["base-models", "corpora"])
def test_registered_things_have_labels_too(
    api: RunningApi, client: httpx.Client, base_model: Body, corpus: Body, path: str
) -> None:
    known = {"base-models": base_model, "corpora": corpus}[path]
    body = {"path": str(api.roots / "tiny")}
    if path == "corpora":
        body = {"name": "novel", "path": str(api.roots / "novel.jsonl")}
    again = client.post(f"/v1/{path}", json=body | {"labels": LABELS})
    assert (again.status_code, again.json()["id"], again.json()["labels"]) == (200, known["id"], LABELS)
    assert client.post(f"/v1/{path}", json=body).json()["labels"] == LABELS
    assert found(client, f"/v1/{path}", label="team:search") == [known["id"]]
    assert found(client, f"/v1/{path}", label="team:ads") == []


@pytest.mark.parametrize("path", ["base-models", "corpora", "variants"])
def test_labels_are_changed_one_by_one(
    client: httpx.Client, stranger: httpx.Client, base_model: Body, corpus: Body, variant_body: Body, path: str
) -> None:
    made = {"base-models": base_model, "corpora": corpus}.get(path) or created(
        client.post("/v1/variants", json=variant_body)
    )
    address = f"/v1/{path}/{made['id']}"
    assert client.patch(address, json={"labels": LABELS}).json()["labels"] == LABELS
    changed = client.patch(address, json={"labels": {"team": "ads", "example.com/stage": None}}).json()
    assert changed["labels"] == client.get(address).json()["labels"] == {"team": "ads"}
    assert found(client, f"/v1/{path}", label="team:ads") == [made["id"]]
    refused(stranger.patch(address, json={"labels": {}}), 404)


@pytest.mark.parametrize(
    "labels", [{"-x": "a"}, {"": "a"}, {"a b": "c"}, {"k": "a" * 64}, {"k": "ü"}, {"UPPER.com/x": "a"}, {"k": 1}]
)
def test_labels_are_written_as_in_kubernetes(client: httpx.Client, base_model: Body, labels: Body) -> None:
    refused(client.patch(f"/v1/base-models/{base_model['id']}", json={"labels": labels}), 422)


def test_too_many_labels_are_refused(client: httpx.Client, base_model: Body, variant_body: Body) -> None:
    many = {f"k{number}": "" for number in range(21)}
    refused(client.post("/v1/variants", json=variant_body | {"labels": many}), 422, "labels")
    assert "20 are allowed" in refused(
        client.patch(f"/v1/base-models/{base_model['id']}", json={"labels": many}), 422, "labels"
    )


@pytest.mark.parametrize("label", ["team", ":x", "a b:c", "k:ü", "a:b:c"])
def test_a_filter_that_is_no_label_is_refused(client: httpx.Client, label: str) -> None:
    refused(client.get("/v1/jobs", params={"label": label}), 422, "label.0")


def test_lists_are_filtered_by_what_made_them(client: httpx.Client, variant_body: Body) -> None:
    first = created(client.post("/v1/variants", json=variant_body))
    elsewhere = variant_body["publish"] | {"repo_id": variant_body["publish"]["repo_id"] + "-2"}
    second = created(client.post("/v1/variants", json=variant_body | {"publish": elsewhere}))
    client.post(f"/v1/jobs/{second['job']['id']}/cancel")
    assert found(client, "/v1/variants", state="cancelled") == [second["id"]]
    assert found(client, "/v1/variants", base_model_id=variant_body["base_model_id"]) == [second["id"], first["id"]]
    assert found(client, "/v1/variants", base_model_id="base_none") == []
    assert found(client, "/v1/jobs", repo_id=elsewhere["repo_id"]) == [second["job"]["id"]]
    assert found(client, "/v1/jobs", created_after=first["created_at"] + 1000) == []
    assert found(client, "/v1/jobs", created_before=first["created_at"]) == []
    assert found(client, "/v1/jobs", created_after=first["created_at"] - 1, state="queued") == [first["job"]["id"]]
    refused(client.get("/v1/jobs", params={"created_after": "yesterday"}), 422, "created_after")


def test_a_key_that_was_used_before_there_were_labels_still_names_its_variant(
    client: httpx.Client, variant_body: Body
) -> None:
    headers = {"Idempotency-Key": "once"}
    first = created(client.post("/v1/variants", json=variant_body, headers=headers))
    again = client.post("/v1/variants", json=variant_body | {"labels": {}}, headers=headers)
    assert again.json()["id"] == first["id"]
    refused(
        client.post("/v1/variants", json=variant_body | {"labels": LABELS}, headers=headers), 409, "Idempotency-Key"
    )
