"""The client's types and calls are those that the OpenAPI document makes now."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher import client
from publisher.reference.client import document, sources


def test_types_and_calls_are_stale_when_the_document_says_something_else() -> None:
    folder = Path(client.__file__).parent
    for name, text in sources(document()).items():
        assert (folder / name).read_text() == text, f"publisher/client/{name} is stale: run `make docs`"


def test_a_field_that_is_no_name_in_python_is_refused() -> None:
    answer = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}}
    operation = {"operationId": "get_thing", "summary": "Get", "responses": {"200": answer}}
    schemas = {"Thing": {"properties": {"from": {"type": "string"}}}}
    with pytest.raises(ValueError, match="Thing has a field 'from'"):
        sources({"paths": {"/v1/thing": {"get": operation}}, "components": {"schemas": schemas}})
