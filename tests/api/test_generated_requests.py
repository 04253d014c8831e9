"""Requests that nobody thought of, generated from the OpenAPI document: no server error, nothing undocumented.

500 in all; PUBLISHER_GENERATED_CASES asks for more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from publisher.store import namespaces
from publisher.store.tenants import find_tenant
from tests.api.conftest import Body, RunningApi, created, recipe, serve_api, write_corpus
from tests.models import tiny_llama

CASES = int(os.environ.get("PUBLISHER_GENERATED_CASES", "500"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
WHO = ["owner", "stranger", "nobody"]
#: of the fixed resources that path parameters are taken from, by the first part of the path
#: streams that end when their listener goes: right requests have tests of their own
ENDLESS = {"/v1/events"}
KINDS = {
    "base-models": "base_model",
    "corpora": "corpus",
    "variants": "variant",
    "jobs": "job",
    "api-keys": "key",
    "sweeps": "sweep",
    "webhooks": "webhook",
}
#: what PATCH changes where there are no labels
CHANGES = {"webhook": {"enabled": False}}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve_api(tmp_path_factory.mktemp("generated")) as api:
        yield api


@pytest.fixture(scope="module")
def schema(api: RunningApi) -> Any:
    return schemathesis.openapi.from_url(f"{api.url}/openapi.json")


@pytest.fixture(scope="module")
def keys(api: RunningApi) -> dict[str, str | None]:
    owner, stranger = api.tenant(), api.tenant()
    with api.database.write() as session:
        namespaces.grant(session, "generated", find_tenant(session, owner.name))
    return {"owner": owner.key, "stranger": stranger.key, "nobody": None}


@pytest.fixture(scope="module")
def owned(api: RunningApi, keys: dict[str, str | None]) -> dict[str, str]:
    """Ids of the owner's things, each kind's. `ended`: a job whose stream ends, since nobody queues it again."""
    with httpx.Client(base_url=api.url, headers=headers(keys["owner"]), timeout=60) as client:
        base = created(client.post("/v1/base-models", json={"path": str(tiny_llama(api.roots / "tiny"))}))
        path = write_corpus(api.roots / "novel.jsonl")
        corpus = created(client.post("/v1/corpora", json={"name": "novel", "path": str(path)}))
        body: Body = {"base_model_id": base["id"], "recipe": recipe(), "publish": {"repo_id": "generated/tiny"}}
        variant, other = (created(client.post("/v1/variants", json=body)) for _ in range(2))
        webhook = created(client.post("/v1/webhooks", json={"url": "https://receiver.invalid/"}))
        key = created(client.post("/v1/api-keys", json={"name": "other"}))
        several = {"vary": {"pruning.ratio": [0.25, 0.5]}, "publish": {"repo_id": "generated/tiny-{ratio}"}}
        sweep = created(client.post("/v1/sweeps", json=body | several))
        ended = client.post(f"/v1/jobs/{other['job']['id']}/cancel").raise_for_status().json()
    found = {"base_model": base, "corpus": corpus, "variant": variant, "job": variant["job"], "key": key} | {
        "ended": ended,
        "sweep": sweep,
        "webhook": webhook,
    }
    return {kind: str(thing["id"]) for kind, thing in found.items()}


def headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def all_operations(schema: Any) -> list[Any]:
    return [result.ok() for result in schema.get_all_operations()]


@pytest.mark.parametrize("who", WHO)
def test_generated_requests_are_answered_as_documented(
    api: RunningApi, schema: Any, keys: dict[str, str | None], owned: dict[str, str], who: str
) -> None:
    operations = all_operations(schema)
    each = -(-CASES // (sum(map(takes_something, operations)) * len(WHO)))
    sent = 0
    for operation in operations:
        own_id = owned[kind_of(operation.path)] if who == "owner" and "{id}" in operation.path else None
        sent += try_out(operation, api, keys[who], each if takes_something(operation) else 1, own_id)
    assert sent >= CASES / len(WHO)


def takes_something(operation: Any) -> bool:
    return any(list(part) for part in (operation.path_parameters, operation.query, operation.headers, operation.body))


def kind_of(path: str) -> str:
    """Of the resource that a path with an id is about."""
    return "ended" if path == "/v1/jobs/{id}/events" else KINDS[path.split("/")[2]]


def try_out(operation: Any, api: RunningApi, key: str | None, examples: int, own_id: str | None) -> int:
    """Send generated requests, right ones and wrong ones, as many as the answer says; with `own_id`, those that are
    meant to be right ask for that."""
    strategy, sent = operation.as_strategy(), 0
    wrong = operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
    if operation.path in ENDLESS and key is not None:
        strategy = wrong
    elif list(operation.body) or list(operation.query):
        strategy |= wrong

    @seed(1)
    @hypothesis_settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def try_one(case: Any) -> None:
        nonlocal sent
        sent += 1
        if own_id is not None and case.meta.generation.mode.is_positive:
            case.path_parameters["id"] = own_id
        answer = case.call(base_url=api.url, headers=headers(key), timeout=60)
        if key is None and operation.path.startswith("/v1/"):
            # a body that is no JSON is refused before anybody asks whose it is
            assert answer.status_code in {400, 401, 413} or "is not JSON" in answer.text, answer.text
        case.validate_response(answer, checks=CHECKS)

    try_one()
    return sent


def test_what_belongs_to_another_tenant_is_not_found(
    api: RunningApi, schema: Any, keys: dict[str, str | None], owned: dict[str, str]
) -> None:
    tried = 0
    with httpx.Client(base_url=api.url, headers=headers(keys["stranger"]), timeout=60) as client:
        for operation in all_operations(schema):
            if "{id}" not in operation.path:
                continue
            own = {"id": owned[kind_of(operation.path)], "path": "config.json", "delivery": "dlv_none"}
            path, change = operation.path.format(**own), CHANGES.get(kind_of(operation.path), {"labels": {}})
            body = change if operation.method.upper() == "PATCH" else None
            assert client.request(operation.method, path, json=body).status_code == 404, path
            tried += 1
    assert tried >= 12
