"""Families as a service knows them; what is found of each is tested in tests/worker/families."""

from __future__ import annotations

import json

import httpx

from tests.api.conftest import RunningApi, refused


def test_every_family_is_supported_or_has_a_reason(client: httpx.Client) -> None:
    answer = client.get("/v1/families").json()
    assert answer["transformers"].startswith("5.")
    by_name = {family["family"]: family for family in answer["families"]}
    assert by_name["llama"]["supported"]
    assert by_name["llama"]["units"] == ["kv_heads", "neurons"]
    assert all(family["supported"] == (family["reason"] is None) for family in by_name.values())
    assert list(by_name) == sorted(by_name)


def test_families_are_told_to_callers_with_a_key(client: httpx.Client) -> None:
    refused(httpx.get(str(client.base_url.join("/v1/families"))), 401)


def test_a_family_that_cannot_be_pruned_is_refused_with_the_reason(client: httpx.Client, api: RunningApi) -> None:
    reasons = {family["family"]: family["reason"] for family in client.get("/v1/families").json()["families"]}
    folder = api.roots / "of-another-family"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    message = refused(client.post("/v1/base-models", json={"path": str(folder)}), 422)
    assert reasons["gpt2"] in message
