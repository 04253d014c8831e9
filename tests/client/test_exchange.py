"""What is tried again, and when: never what may have been done by a try that nobody heard of."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from publisher.client import calls
from publisher.client.call import OMIT, Call
from publisher.client.exchange import Exchange, Retries
from publisher.errors import InfrastructureFault, RequestFault

URL = "http://service.invalid"
READ = calls.get_job("job_1")
WRITE = calls.cancel_job("job_1")
ONCE = calls.create_variant(base_model_id="base_1", recipe={}, publish={"repo_id": "me/x"})
GONE = calls.delete_job("job_1")


def exchange(call: Call[Any], **retries: float) -> Exchange[Any]:
    return Exchange(URL, call, Retries(**{"tries": 3, "first": 0.5, "longest": 10} | retries))  # type: ignore[arg-type]


def answer(status: int, headers: dict[str, str] | None = None, **content: Any) -> httpx.Response:
    return httpx.Response(status, headers=headers, request=httpx.Request("GET", URL), **content)


@pytest.mark.parametrize("call", [READ, ONCE, GONE])
def test_a_connection_that_breaks_is_repeated_at_growing_pauses(call: Call[Any]) -> None:
    tried = exchange(call)
    assert [tried.failed(httpx.ReadError("broken")) for _ in range(2)] == [0.5, 1.0]
    with pytest.raises(InfrastructureFault, match=f"{URL} does not answer"):
        tried.failed(httpx.ReadError("broken"))


def test_what_may_have_been_done_is_not_done_twice() -> None:
    with pytest.raises(InfrastructureFault):
        exchange(WRITE).failed(httpx.ReadTimeout("silent"))
    assert exchange(WRITE).answered(answer(503)) is None


def test_what_never_arrived_is_tried_again_and_a_silent_address_is_not_waited_for_twice() -> None:
    assert exchange(WRITE).failed(httpx.ConnectError("refused")) == 0.5
    with pytest.raises(InfrastructureFault):
        exchange(READ).failed(httpx.ConnectTimeout("silent"))


def test_a_service_that_says_when_is_asked_then() -> None:
    assert exchange(WRITE).answered(answer(429, {"Retry-After": "7"})) == 7
    assert exchange(READ).answered(answer(503, {"Retry-After": "2"})) == 2
    assert exchange(READ).answered(answer(429, {"Retry-After": "3600"})) is None


@pytest.mark.parametrize("status", [200, 400, 404, 409, 422, 500])
def test_an_answer_is_an_answer(status: int) -> None:
    assert exchange(READ).answered(answer(status, json={})) is None


def test_an_order_has_one_key_over_all_its_tries_and_keeps_one_that_was_given() -> None:
    sent = exchange(ONCE).call
    assert len(sent.request()["headers"]["Idempotency-Key"]) > 16
    given = calls.create_variant(base_model_id="b", recipe={}, publish={"repo_id": "me/x"}, idempotency_key="mine")
    assert exchange(given).call.request()["headers"] == {"Idempotency-Key": "mine"}
    assert exchange(WRITE).call is WRITE


def test_a_delete_whose_answer_was_lost_has_been_done() -> None:
    tried = exchange(GONE)
    tried.failed(httpx.ReadError("broken"))
    assert tried.answer(answer(404, json={"detail": "job job_1 does not exist."})) is None
    with pytest.raises(RequestFault, match="does not exist"):
        exchange(GONE).answer(answer(404, json={"detail": "job job_1 does not exist."}))


def test_what_is_left_out_is_not_sent_and_null_is() -> None:
    call = calls.register_base_model(repo_id=None, revision=OMIT)
    assert call.request()["json"] == {"repo_id": None}


def test_a_page_of_something_else_is_no_answer() -> None:
    page = answer(200, {"content-type": "text/html"}, text="<html>")
    with pytest.raises(InfrastructureFault, match="text/html, not as a publisher's service does"):
        exchange(READ).answer(page)


def test_names_in_a_path_cannot_lead_elsewhere() -> None:
    assert calls.get_job("../api-keys?x").path == "/v1/jobs/..%2Fapi-keys%3Fx"
    assert calls.read_variant_file("var_1", "plots/a b.png").path == "/v1/variants/var_1/files/plots/a%20b.png"
