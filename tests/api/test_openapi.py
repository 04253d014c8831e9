"""The OpenAPI document is what clients are generated from: whole, with plain names, and true to what is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from publisher.api.errors import MEDIA_TYPE
from publisher.app import create_app
from publisher.settings import Settings
from publisher.webhooks.register import EVENT_TYPES
from tests.api.conftest import RunningApi, created, refused

Document = dict[str, Any]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("data"))).openapi()


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_every_operation_has_a_plain_name_of_its_own(document: Document) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name) or "v1" in name] == []
    assert {"list_jobs", "get_job", "create_variant", "register_base_model", "plan_variant"} <= set(names)


def test_every_property_and_parameter_is_described(document: Document) -> None:
    undescribed = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, of in schema.get("properties", {}).items()
        if not of.get("description")
    ]
    undescribed += [
        f"{method} {path}: {parameter['name']}"
        for path, method, operation in operations(document)
        for parameter in operation.get("parameters", [])
        if not parameter.get("description")
    ]
    assert undescribed == []


def test_every_operation_says_how_it_refuses(document: Document) -> None:
    for path, method, operation in operations(document):
        if not path.startswith("/v1/"):
            continue
        responses = operation["responses"]
        expected = {"401", "422", "503"}
        expected |= {"404"} if "{" in path else set()
        expected |= {"400", "413"} if "requestBody" in operation else set()
        expected |= {"507"} if method != "get" else set()
        assert expected <= responses.keys(), (path, method)
        for status, response in responses.items():
            if int(status) >= 400 and int(status) != 416:  # of a range there is nothing to say
                schema = response["content"][MEDIA_TYPE]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (path, method, status)


def test_no_schema_is_there_of_what_is_never_sent_and_every_reference_leads_somewhere(document: Document) -> None:
    schemas = document["components"]["schemas"]
    assert not {"HTTPValidationError", "ValidationError"} & schemas.keys()
    references = set(re.findall(r"'#/components/schemas/([^']+)'", str(document)))
    assert references <= schemas.keys()


def test_what_webhooks_are_sent_is_described_whole(document: Document) -> None:
    assert list(document["webhooks"]) == [each.name for each in EVENT_TYPES]
    for each in EVENT_TYPES:
        message = document["webhooks"][each.name]["post"]
        assert (message["operationId"], message["description"]) == (each.name.replace(".", "_"), each.words)
        assert list(message["responses"]) == ["204"]
        schema = message["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[-1]
        fields = document["components"]["schemas"][schema]["properties"]
        assert fields["type"]["const"] == each.name
        assert fields["data"]["$ref"].endswith(f"/{each.data.__name__}")


def test_the_document_is_served(api: RunningApi) -> None:
    served = httpx.get(f"{api.url}/openapi.json").json()
    assert served["components"]["schemas"]["Problem"]["properties"]["errors"]


LISTS = ["/v1/base-models", "/v1/corpora", "/v1/variants", "/v1/jobs", "/v1/api-keys"]


@pytest.mark.parametrize("path", LISTS)
def test_a_parameter_that_there_is_not_is_refused_with_those_that_there_are(client: httpx.Client, path: str) -> None:
    said = refused(client.get(path, params={"base_model": "x", "limit": 1}), 422, "base_model")
    assert "cursor" in said
    assert "limit" in said


def test_calls_without_parameters_say_so(client: httpx.Client, stranger: httpx.Client) -> None:
    assert "It takes none" in refused(client.post("/v1/jobs/x/cancel?force=1"), 422, "force")
    refused(client.get("/v1/families?limit=1"), 422, "limit")


def test_the_key_is_asked_for_before_parameters_are_looked_at(api: RunningApi) -> None:
    refused(httpx.get(f"{api.url}/v1/jobs?what=1"), 401)


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("cursor", ["nonsense", "job_", "%00", "", "job_0192f3a1c2b4d5e6f7a8bz"])
def test_a_broken_cursor_is_refused(client: httpx.Client, path: str, cursor: str) -> None:
    assert "String should" not in refused(client.get(f"{path}?cursor={cursor}"), 422, "cursor")


def test_a_cursor_of_another_list_is_refused(client: httpx.Client) -> None:
    key = created(client.post("/v1/api-keys", json={"name": "ci"}))
    assert client.get("/v1/api-keys", params={"cursor": key["id"]}).is_success
    assert "not of this list" in refused(client.get("/v1/jobs", params={"cursor": key["id"]}), 422, "cursor")
