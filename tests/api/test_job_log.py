"""A job's log and attempts; a test plays the worker."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import event

from publisher.api import job_log
from publisher.jobs import leases, transitions
from publisher.jobs.events import NewEvent
from publisher.jobs.leases import Lease
from publisher.jobs.transitions import Blame, Failure, RetryPolicy
from publisher.store.job_history import log_after
from publisher.store.states import EventKind
from tests.api.conftest import Body, RunningApi, created, refused
from tests.jobs.rows import claim

POLICY = RetryPolicy(max_attempts=2, backoff_seconds=0)


@pytest.fixture
def job_id(client: httpx.Client, variant_body: Body) -> str:
    return str(created(client.post("/v1/variants", json=variant_body))["job"]["id"])


def say(api: RunningApi, lease: Lease, *messages: str) -> None:
    """Lines of the log, with a metric between them."""
    said = [NewEvent(EventKind.LOG, {"message": message, "stage": "align"}, at=1e9) for message in messages]
    metric = NewEvent(EventKind.METRIC, {"name": "loss", "step": 1, "value": 1.0})
    with api.database.write() as session:
        for line in said:
            leases.report(session, lease, [line, metric], "align", {"align": {"state": "started"}})


def fail(api: RunningApi, lease: Lease) -> None:
    with api.database.write() as session:
        transitions.fail(session, lease, Failure(Blame.INFRASTRUCTURE, "align", "disk full"), POLICY)


@pytest.fixture
def tried(api: RunningApi, job_id: str) -> str:
    """A job that was tried once and runs again."""
    lease = claim(api.database, job_id)
    say(api, lease, "Größe: 3", "step 10")
    fail(api, lease)
    say(api, claim(api.database, job_id), "step 10 %", "done")
    return job_id


def lines(client: httpx.Client, job_id: str, **query: object) -> list[str]:
    answer = client.get(f"/v1/jobs/{job_id}/log", params=query)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return [item["message"] for item in answer.json()["items"]]


def test_log_has_time_stage_and_message_oldest_first(client: httpx.Client, tried: str) -> None:
    assert lines(client, tried) == ["Größe: 3", "step 10", "step 10 %", "done"]
    first = client.get(f"/v1/jobs/{tried}/log").json()["items"][0]
    assert first == {"seq": 3, "at": 1e9, "stage": "align", "message": "Größe: 3"}


def test_log_is_searched_in_any_case_and_letter_for_letter(client: httpx.Client, tried: str) -> None:
    assert lines(client, tried, q="STEP 10") == ["step 10", "step 10 %"]
    assert lines(client, tried, q="GRÖSSE") == ["Größe: 3"]
    assert lines(client, tried, q="10 %") == ["step 10 %"]
    assert lines(client, tried, q="step_10") == []


def test_log_of_one_attempt(client: httpx.Client, tried: str) -> None:
    assert lines(client, tried, attempt=1) == ["Größe: 3", "step 10"]
    assert lines(client, tried, attempt=2) == ["step 10 %", "done"]
    assert "no attempt 3" in refused(client.get(f"/v1/jobs/{tried}/log", params={"attempt": 3}), 404)


def test_log_pages_by_cursor_through_what_is_searched(client: httpx.Client, tried: str) -> None:
    first = client.get(f"/v1/jobs/{tried}/log", params={"q": "step", "limit": 1}).json()
    assert [item["message"] for item in first["items"]] == ["step 10"]
    second = client.get(
        f"/v1/jobs/{tried}/log", params={"q": "step", "limit": 1, "cursor": first["next_cursor"]}
    ).json()
    assert [item["message"] for item in second["items"]] == ["step 10 %"]
    assert second["next_cursor"] is None


def test_a_cursor_that_is_none_of_ours_is_refused(client: httpx.Client, tried: str) -> None:
    for path in ("log", "attempts"):
        refused(client.get(f"/v1/jobs/{tried}/{path}", params={"cursor": "x"}), 422, "cursor")


@pytest.mark.parametrize(("path", "headers"), [("log.txt", {}), ("log", {"Accept": "text/plain"})])
def test_whole_log_is_downloaded_as_text(
    client: httpx.Client, tried: str, path: str, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_log, "BATCH", 2)
    answer = client.get(f"/v1/jobs/{tried}/{path}", headers=headers)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{tried}.txt"'
    said = ["Größe: 3", "step 10", "step 10 %", "done"]
    assert answer.text == "".join(f"2001-09-09T01:46:40.000Z [align] {message}\n" for message in said)


def test_attempts_tell_how_each_ended_and_where_the_running_one_is(client: httpx.Client, tried: str) -> None:
    second, first = client.get(f"/v1/jobs/{tried}/attempts").json()["items"]
    assert (first["number"], first["outcome"], first["failure"]["message"]) == (1, "failed", "disk full")
    assert first["stages"] == second["stages"] == {"align": {"state": "started"}}
    assert (second["number"], second["attempt"], second["outcome"], second["finished_at"]) == (2, 2, None, None)
    assert second["last_event"] == client.get(f"/v1/jobs/{tried}").json()["event_seq"]


def test_attempts_page_by_cursor(client: httpx.Client, tried: str) -> None:
    first = client.get(f"/v1/jobs/{tried}/attempts", params={"limit": 1}).json()
    assert [item["number"] for item in first["items"]] == [2]
    second = client.get(f"/v1/jobs/{tried}/attempts", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [item["number"] for item in second["items"]] == [1]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("path", ["log", "log.txt", "attempts"])
def test_somebody_elses_log_is_not_found(stranger: httpx.Client, tried: str, path: str) -> None:
    refused(stranger.get(f"/v1/jobs/{tried}/{path}"), 404)


def test_log_is_found_without_reading_metrics(api: RunningApi, tried: str) -> None:
    sent: list[tuple[str, Any]] = []

    def keep(connection: object, cursor: object, statement: str, parameters: Any, *more: object) -> None:
        sent.append((statement, parameters))

    event.listen(api.database.engine, "before_cursor_execute", keep)
    try:
        with api.database.read() as session:
            log_after(session, tried, 0, 100, 10)
    finally:
        event.remove(api.database.engine, "before_cursor_execute", keep)
    ((statement, parameters),) = [one for one in sent if "'log'" in one[0]]
    with api.database.engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert "ix_job_events_log" in str(plan)
