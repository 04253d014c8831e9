"""What the client makes of a service's answers, and of one that comes and goes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from fastapi import Response
from fastapi.responses import JSONResponse

from publisher.client.client import Client
from publisher.client.events import Event, parse_events
from publisher.errors import InfrastructureFault, PublisherError, RequestFault
from tests.client.service import Scripted, Stream, scripted_service

RUNNING, LINE = (1, "state", {"state": "running"}), (2, "log", {"message": "a"})
DONE = (3, "state", {"state": "succeeded"})


@pytest.fixture
def service() -> Iterator[Scripted]:
    with scripted_service() as service:
        yield service


def followed(service: Scripted, *, patience: float = 30, after: int = 0) -> list[int]:
    with Client(service.url, "key") as client:
        return [event.id for event in client.follow_job("job_1", after=after, patience=patience, pause=0.01)]


def test_events_are_read_from_their_lines() -> None:
    lines = [": keep-alive", "", "id: 3", "event: log", 'data: {"message":', 'data: "two lines"}', "", "id:4"]
    lines += ["event:state", 'data:{"state": "running"}', ""]
    assert list(parse_events(iter(lines))) == [
        Event(3, "log", {"message": "two lines"}),
        Event(4, "state", {"state": "running"}),
    ]


def test_an_event_that_was_cut_off_is_not_delivered() -> None:
    assert not list(parse_events(iter(["id: 1", "event: log", 'data: {"message": "half"}'])))


def test_a_service_that_is_away_is_named_with_the_way_out() -> None:
    with (
        Client("http://127.0.0.1:9", "key") as client,
        pytest.raises(InfrastructureFault, match=r"127.0.0.1:9 does not answer .*publisher up"),
    ):
        client.get("/v1/jobs")


def test_a_refused_key_is_told_with_the_address_that_refused_it(service: Scripted) -> None:
    service.answers = [JSONResponse({"detail": "The API key is missing, wrong or revoked."}, 401)]
    with (
        Client(service.url, "key") as client,
        pytest.raises(RequestFault, match=f"^{service.url}: The API key is missing"),
    ):
        client.get("/v1/jobs")


def test_stream_that_breaks_off_goes_on_after_the_last_event(service: Scripted) -> None:
    service.answers = [Stream((RUNNING, LINE), broken=True), Stream((DONE,))]
    assert followed(service) == [1, 2, 3]
    assert service.last_event_ids() == ["0", "2"]


def test_stream_that_ends_before_the_job_is_asked_for_again(service: Scripted) -> None:
    service.answers = [Stream((RUNNING,)), Stream(), Stream((LINE, DONE))]
    assert followed(service) == [1, 2, 3]
    assert service.last_event_ids() == ["0", "1", "1"]


def test_proxy_that_answers_for_a_service_that_restarts_is_waited_out(service: Scripted) -> None:
    service.answers = [Stream((RUNNING,), broken=True), Response("Bad Gateway", 502), Stream((LINE, DONE))]
    assert followed(service) == [1, 2, 3]


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_following_ends_with_the_job_whatever_comes_after(service: Scripted, state: str) -> None:
    service.answers = [Stream((RUNNING, (2, "state", {"state": state}), (3, "log", {"message": "late"})))]
    assert followed(service) == [1, 2]


def test_following_begins_where_it_is_told(service: Scripted) -> None:
    service.answers = [Stream((DONE,))]
    assert followed(service, after=2) == [3]
    assert service.last_event_ids() == ["2"]


def test_each_time_that_the_service_is_away_is_told_once(service: Scripted) -> None:
    away = Response("Bad Gateway", 502)
    service.answers = [away, away, away, Stream((RUNNING,), broken=True), away, Stream((LINE, DONE))]
    told: list[str] = []
    with Client(service.url, "key") as client:
        assert len(list(client.follow_job("job_1", pause=0.01, on_away=told.append))) == 3
    assert len(told) == 2
    assert "HTTP 502" in told[0]


@pytest.mark.parametrize("answer", [Stream(), Response("Bad Gateway", 502)])
def test_service_that_stays_away_is_given_up(service: Scripted, answer: Stream | Response) -> None:
    service.answers = [answer]
    with pytest.raises(InfrastructureFault, match=r"is away since 0 seconds: (it ends the stream|GET .* HTTP 502)"):
        followed(service, patience=0.05)


def test_job_that_does_not_exist_is_not_waited_for(service: Scripted) -> None:
    service.answers = [JSONResponse({"detail": "job job_1 does not exist."}, 404)]
    with pytest.raises(RequestFault, match="job job_1 does not exist"):
        followed(service)
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (422, {"title": "Invalid", "detail": "all of it", "errors": [{"field": "recipe.ratio", "message": "too high"}]},
         RequestFault, "recipe.ratio: too high"),
        (409, {"title": "Conflict", "detail": "it has ended."}, RequestFault, "it has ended."),
        (503, {"title": "Away"}, InfrastructureFault, "Away"),
    ],
)  # fmt: skip
def test_problem_details_become_the_fault_that_they_tell_of(
    service: Scripted, status: int, body: dict[str, object], kind: type[PublisherError], says: str
) -> None:
    service.answers = [JSONResponse(body, status)]
    with Client(service.url, "key") as client, pytest.raises(kind) as refused:
        client.get("/v1/jobs")
    assert (type(refused.value), str(refused.value)) == (kind, says)


@pytest.mark.parametrize("body", ["<html>", '"text"', "[]", "", "null"])
def test_answer_of_a_proxy_is_told_by_its_status(service: Scripted, body: str) -> None:
    service.answers = [Response(body, 504)]
    with (
        Client(service.url, "key") as client,
        pytest.raises(InfrastructureFault, match=r"^GET /v1/jobs: HTTP 504"),
    ):
        client.get("/v1/jobs")


def test_calls_carry_key_query_body_and_idempotency_key(service: Scripted) -> None:
    service.answers = [JSONResponse({"id": "x"}), Response(status_code=204)]
    with Client(f"{service.url}/", "the-key") as client:
        assert client.post("/v1/variants", {"a": 1}, idempotency_key="once") == {"id": "x"}
        assert client.get("/v1/jobs", limit=2) is None
    (method, path, headers, body), (_, asked, plain, _) = service.asked
    assert (method, path, json.loads(body)) == ("POST", "/v1/variants?", {"a": 1})
    assert (headers["authorization"], headers["idempotency-key"]) == ("Bearer the-key", "once")
    assert asked == "/v1/jobs?limit=2"
    assert "idempotency-key" not in plain
