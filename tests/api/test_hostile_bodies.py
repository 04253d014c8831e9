"""Bodies and paths that no honest client sends: refused as problems, on both databases, never a 500."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from publisher.api.errors import MEDIA_TYPE
from tests.api.conftest import refused, serve_api

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def caller(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder: Path = tmp_path_factory.mktemp("hostile")
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgresql_server")
    with serve_api(folder, database_url=url) as api, api.tenant().client() as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/api-keys", b'{"name": "a\\u0000b"}'),
        ("/v1/api-keys", b'{"name": "\\ud800"}'),
        ("/v1/api-keys", b'{"name": "x", "\\ud800": 1}'),
        ("/v1/api-keys", b'{"name": ["x"]}'),
        ("/v1/api-keys", b"[]"),
        ("/v1/api-keys", b"null"),
        ("/v1/api-keys", b""),
        ("/v1/api-keys", b"\xff\xfe"),
        ("/v1/base-models", b'{"path": "/a\\u0000b"}'),
        ("/v1/base-models", b'{"path": "relative"}'),
        ("/v1/base-models", b'{"path": "/' + b"a" * 4000 + b'"}'),
        ("/v1/corpora", b'{"name": "x", "path": "/tmp", "text_field": "\\u0000"}'),
        ("/v1/plans", b'{"base_model_id": "\\u0000", "recipe": {"pruning": {"ratio": 0.5, "criterion": "random"}}}'),
        ("/v1/plans", b'{"base_model_id": "x", "recipe": {"pruning": {"ratio": NaN, "criterion": "random"}}}'),
        ("/v1/plans", b'{"base_model_id": "x", "recipe": {"seed": 1' + b"0" * 4000 + b"}}"),
    ],
)
def test_a_body_that_cannot_be_meant_is_refused(caller: httpx.Client, path: str, body: bytes) -> None:
    answer = caller.post(path, content=body, headers=JSON)
    assert answer.status_code in {400, 404, 422}, answer.text
    refused(answer, answer.status_code)


def test_a_deeply_nested_body_is_refused(caller: httpx.Client) -> None:
    answer = caller.post("/v1/plans", content=b"[" * 500_000, headers=JSON)
    refused(answer, 400)


@pytest.mark.parametrize("path", ["/v1/jobs/%00", "/v1/jobs/%ff", "/v1/jobs/..%2f..", "/v1/variants/%00/files/x"])
def test_an_id_of_strange_bytes_is_not_found(caller: httpx.Client, path: str) -> None:
    answer = caller.get(path)
    assert answer.status_code in {404, 422}, answer.text
    refused(answer, answer.status_code)


def test_a_cursor_of_strange_bytes_is_harmless(caller: httpx.Client) -> None:
    answer = caller.get("/v1/jobs?cursor=%00")
    assert answer.status_code == 200 or answer.headers["content-type"] == MEDIA_TYPE
    assert answer.status_code < 500
