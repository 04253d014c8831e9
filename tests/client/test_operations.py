"""The client against the service's own OpenAPI document, and against its answers."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from publisher.client import AsyncClient, Client, calls, types
from publisher.client.call import Call
from publisher.reference.client import document
from tests.api.conftest import RunningApi, Tenant, recipe

Document = dict[str, Any]
#: the client resumes streams and files by these itself
_BY_ITSELF = {"last_event_id"}


@pytest.fixture(scope="module")
def operations() -> dict[str, tuple[str, str, Document]]:
    """operationId → method, path, operation."""
    found = document()
    schemas = found["components"]["schemas"]
    return {
        operation["operationId"]: (method.upper(), path, operation | {"schemas": schemas})
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
    }


def body_of(operation: Document) -> Document:
    if "requestBody" not in operation:
        return {}
    schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    return dict(operation["schemas"][schema.rpartition("/")[-1]])


def names_of(operation: Document) -> set[str]:
    sent = {each["name"].lower().replace("-", "_") for each in operation.get("parameters", [])}
    return sent | body_of(operation).get("properties", {}).keys()


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {name: each for name, each in inspect.signature(function).parameters.items() if name != "self"}


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_every_operation_is_a_method_with_its_parameters_and_fields(
    operations: dict[str, tuple[str, str, Document]], client: type
) -> None:
    opened = client("http://127.0.0.1:9", "key")
    for name, (_, _, operation) in operations.items():
        assert parameters(getattr(opened, name)).keys() >= names_of(operation) - _BY_ITSELF, name


def test_a_call_is_sent_where_the_document_says_with_all_that_it_takes(
    operations: dict[str, tuple[str, str, Document]],
) -> None:
    for name, (method, path, operation) in operations.items():
        build = getattr(calls, name)
        given = {parameter: f"<{parameter}>" for parameter in parameters(build)}
        call: Call[Any] = build(**given)
        assert (call.method, call.path) == (method, re.sub(r"\{(\w+)\}", r"%3C\1%3E", path)), name
        assert dict(call.body or {}) == {field: given[field] for field in body_of(operation).get("properties", {})}
        by_place = {place: {each["name"] for each in operation.get("parameters", []) if each["in"] == place}
                    for place in ("query", "header")}  # fmt: skip
        assert call.query.keys() == by_place["query"], name
        assert call.headers.keys() == by_place["header"], name


def test_what_must_be_given_has_no_default(operations: dict[str, tuple[str, str, Document]]) -> None:
    for name, (_, _, operation) in operations.items():
        required = {each["name"] for each in operation.get("parameters", []) if each["required"]}
        required |= set(body_of(operation).get("required", ()))
        found = {field for field, each in parameters(getattr(calls, name)).items() if each.default is each.empty}
        assert found == required, name


def checked(answer: object, kind: Any) -> None:
    """The answer is of this type: each field is there, and is what it says."""
    TypeAdapter(kind).validate_python(answer, strict=True)


def test_answers_are_what_their_types_say(api: RunningApi) -> None:
    tenant = api.tenant()
    with Client(tenant.url, tenant.key) as client:
        base = client.register_base_model(path=str(api.roots / "tiny"), labels={"team": "search"})
        corpus = client.register_corpus(name="novel", path=str(api.roots / "novel.jsonl"))
        variant = ordered(client, tenant, base["id"])
        job = variant["job"]["id"]
        checked(base, types.BaseModelAnswer)
        checked(corpus, types.CorpusAnswer)
        checked(variant, types.VariantAnswer)
        checked(client.plan_variant(base_model_id=base["id"], recipe=recipe()), types.PlanAnswer)
        checked(client.list_jobs(state=["queued"], label=["team:search"])["items"], list[types.JobAnswer])
        checked(client.get_job(job), types.JobDetail)
        checked(client.list_attempts(job)["items"], list[types.AttemptAnswer])
        checked(client.get_job_metrics(job), types.JobMetrics)
        checked(client.list_variants()["items"], list[types.VariantSummary])
        checked(client.create_api_key(name="ci", scopes=["hub:read"]), types.NewApiKeyAnswer)
        checked(client.list_api_keys()["items"], list[types.ApiKeyAnswer])
        checked(client.list_families(), types.Families)
        checked(client.list_workers(), types.Workers)
        checked(client.get_quotas(), types.QuotasAnswer)
        checked(client.list_audit_log()["items"], list[types.AuditAnswer])
        checked(client.get_me(), types.MeAnswer)
        checked(client.get_readiness(), types.Readiness)
        assert client.download_log(job) == ""
        assert "publisher_" in client.get_metrics()
        checked(client.cancel_job(job), types.JobAnswer)
        assert client.delete_variant(variant["id"]) is None


def ordered(client: Client, tenant: Tenant, base_model_id: str) -> types.VariantAnswer:
    publish = {"repo_id": f"{tenant.name}/tiny", "private": False}
    return client.create_variant(base_model_id=base_model_id, recipe=recipe(), publish=publish)


def test_pages_are_one_list(api: RunningApi) -> None:
    tenant = api.tenant()
    with Client(tenant.url, tenant.key) as client:
        made = [client.create_api_key(name=f"k{number}")["id"] for number in range(5)]
        found = [key["id"] for key in client.every(calls.list_api_keys, limit=2)]
    assert found[:5] == made[::-1]
    assert len(found) == 6


def test_the_asynchronous_client_does_the_same(api: RunningApi, tmp_path: Path) -> None:
    tenant = api.tenant()

    async def use() -> None:
        async with AsyncClient(tenant.url, tenant.key) as client:
            base = await client.register_base_model(path=str(api.roots / "tiny"))
            await client.register_corpus(name="novel", path=str(api.roots / "novel.jsonl"))
            publish = {"repo_id": f"{tenant.name}/tiny", "private": False}
            variant = await client.create_variant(base_model_id=base["id"], recipe=recipe(), publish=publish)
            job = variant["job"]["id"]
            assert [each["id"] async for each in client.every(calls.list_jobs, limit=1)] == [job]
            await client.cancel_job(job)
            events = [event async for event in client.follow_job(job)]
            assert events[-1].data["state"] == "cancelled"

    asyncio.run(use())
