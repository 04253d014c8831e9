"""Every answer carries the id of its request."""

from __future__ import annotations

import httpx
import pytest
from fastapi.testclient import TestClient

from publisher.app import create_app
from publisher.hub.request_ids import HEADER
from publisher.settings import Settings
from tests.api.conftest import RunningApi


@pytest.mark.parametrize("path", ["/healthz", "/login", "/v1/jobs", "/nowhere", "/hub/api/models", "/hub/nowhere"])
def test_every_answer_carries_an_id_of_its_own(api: RunningApi, path: str) -> None:
    first, second = (httpx.get(f"{api.url}{path}").headers[HEADER] for _ in range(2))
    assert first != second
    assert first.startswith("req_")


def test_an_id_that_the_caller_chose_is_kept(api: RunningApi) -> None:
    assert httpx.get(f"{api.url}/healthz", headers={HEADER: "trace-7:a.b_c"}).headers[HEADER] == "trace-7:a.b_c"


@pytest.mark.parametrize("chosen", ["", "two words", "a" * 129, "-x", 'quote"', "line;drop"])
def test_an_id_that_could_spoil_a_log_is_replaced(api: RunningApi, chosen: str) -> None:
    assert httpx.get(f"{api.url}/healthz", headers={HEADER: chosen}).headers[HEADER].startswith("req_")


def test_an_answer_to_what_nobody_foresaw_carries_it_too(settings: Settings) -> None:
    app = create_app(settings)

    @app.get("/breaks")
    async def breaks() -> None:
        raise RuntimeError

    answer = TestClient(app, raise_server_exceptions=False).get("/breaks", headers={HEADER: "mine"})
    assert (answer.status_code, answer.headers[HEADER]) == (500, "mine")
