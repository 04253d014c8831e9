"""Jobs as seen from outside; a test plays the worker."""

from __future__ import annotations

import httpx
import pytest

from publisher.jobs import leases, transitions
from publisher.jobs.events import NewEvent
from publisher.jobs.transitions import Blame, Failure, RetryPolicy
from publisher.jobs.waiting import Waiting, WaitKind
from publisher.store.states import EventKind
from tests.api.conftest import Body, RunningApi, created, refused
from tests.jobs.rows import claim, metric


@pytest.fixture
def job(client: httpx.Client, variant_body: Body) -> Body:
    return dict(created(client.post("/v1/variants", json=variant_body))["job"])


def fail(api: RunningApi, job_id: str) -> None:
    failure = Failure(Blame.REQUEST, "align", "not enough text", "Register more.")
    lease = claim(api.database, job_id)
    with api.database.write() as session:
        transitions.fail(session, lease, failure, RetryPolicy.of(api.settings))


def test_a_queued_job_is_cancelled_at_once(client: httpx.Client, job: Body) -> None:
    answer = client.post(f"/v1/jobs/{job['id']}/cancel")
    assert answer.json()["state"] == "cancelled"
    assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"


def test_a_running_job_is_asked_to_stop(api: RunningApi, client: httpx.Client, job: Body) -> None:
    claim(api.database, job["id"])
    assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelling"


def test_a_failed_job_says_why_and_can_be_retried(api: RunningApi, client: httpx.Client, job: Body) -> None:
    fail(api, job["id"])
    found = client.get(f"/v1/jobs/{job['id']}").json()
    assert found["state"] == "failed"
    assert found["failure"] == {
        "blame": "request", "stage": "align", "message": "not enough text", "way_out": "Register more.",
        "error_id": None,
    }  # fmt: skip
    refused(client.post(f"/v1/jobs/{job['id']}/cancel"), 409)
    assert client.post(f"/v1/jobs/{job['id']}/retry").json()["state"] == "queued"


def test_a_queued_job_cannot_be_retried(client: httpx.Client, job: Body) -> None:
    assert "Only a failed or cancelled job" in refused(client.post(f"/v1/jobs/{job['id']}/retry"), 409)


def test_a_queued_job_is_paused_and_resumed(client: httpx.Client, job: Body) -> None:
    paused = client.post(f"/v1/jobs/{job['id']}/pause").json()
    assert paused["state"] == "paused"
    assert paused["pause_requested_at"] is not None
    assert [found["id"] for found in client.get("/v1/jobs", params={"state": "paused"}).json()["items"]] == [job["id"]]
    resumed = client.post(f"/v1/jobs/{job['id']}/resume").json()
    assert (resumed["state"], resumed["pause_requested_at"]) == ("queued", None)


def test_a_running_job_is_asked_to_pause(api: RunningApi, client: httpx.Client, job: Body) -> None:
    claim(api.database, job["id"])
    assert client.post(f"/v1/jobs/{job['id']}/pause").json()["state"] == "pausing"


def test_what_has_ended_is_not_paused(api: RunningApi, client: httpx.Client, job: Body) -> None:
    fail(api, job["id"])
    for action in ("pause", "resume"):
        assert "is failed" in refused(client.post(f"/v1/jobs/{job['id']}/{action}"), 409)


def test_jobs_are_filtered_by_state_and_variant(api: RunningApi, client: httpx.Client, variant_body: Body) -> None:
    first, second = (created(client.post("/v1/variants", json=variant_body)) for _ in range(2))
    fail(api, first["job"]["id"])
    by_state = client.get("/v1/jobs", params={"state": "failed"}).json()["items"]
    assert [job["id"] for job in by_state] == [first["job"]["id"]]
    by_variant = client.get("/v1/jobs", params={"variant_id": second["id"]}).json()["items"]
    assert [job["id"] for job in by_variant] == [second["job"]["id"]]
    refused(client.get("/v1/jobs", params={"state": "lost"}), 422, "state.0")


def test_jobs_page_by_cursor(client: httpx.Client, variant_body: Body) -> None:
    made = [created(client.post("/v1/variants", json=variant_body))["job"]["id"] for _ in range(3)]
    first = client.get("/v1/jobs", params={"limit": 2}).json()
    second = client.get("/v1/jobs", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [job["id"] for job in first["items"] + second["items"]] == sorted(made, reverse=True)
    assert second["next_cursor"] is None


def test_metrics_are_series_by_rising_step(api: RunningApi, client: httpx.Client, job: Body) -> None:
    lease = claim(api.database, job["id"])
    points = [("loss", 1, 3.0), ("loss", 2, 2.0), ("perplexity", 0, 9.0), ("loss", 2, 2.5)]
    reported = [NewEvent(EventKind.METRIC, {"name": n, "step": s, "value": v}) for n, s, v in points]
    with api.database.write() as session:
        leases.report(session, lease, reported, "align", {})
    series = client.get(f"/v1/jobs/{job['id']}/metrics").json()["series"]
    assert [(point["step"], point["value"]) for point in series["loss"]] == [(1, 3.0), (2, 2.5)]
    assert [point["value"] for point in series["perplexity"]] == [9.0]


def test_long_series_come_thinned_by_name_and_by_steps(api: RunningApi, client: httpx.Client, job: Body) -> None:
    lease = claim(api.database, job["id"])
    told = [metric(name, step, float(step == 700)) for step in range(1000) for name in ("loss", "learning_rate")]
    with api.database.write() as session:
        leases.report(session, lease, [*told, metric("perplexity", 1, 9.0)], "align", {})
    address = f"/v1/jobs/{job['id']}/metrics"
    answer = client.get(address).json()
    assert answer["thinned"] == ["learning_rate", "loss"]
    loss = answer["series"]["loss"]
    assert 200 < len(loss) <= 500
    assert (loss[0]["step"], loss[-1]["step"]) == (0, 999)
    assert [point["step"] for point in loss if point["value"] == 1.0] == [700]
    closer = client.get(
        address, params={"name": ["loss", "none"], "points": 10, "from_step": 690, "to_step": 709}
    ).json()
    assert list(closer["series"]) == closer["thinned"] == ["loss"]
    assert {690, 700, 709} <= {point["step"] for point in closer["series"]["loss"]}
    assert len(client.get(address, params={"points": 1000, "name": "loss"}).json()["series"]["loss"]) == 1000
    for wrong in ({"points": 3}, {"points": 20_001}, {"from_step": -1}):
        refused(client.get(address, params=wrong), 422)


@pytest.mark.parametrize("action", ["", "/events", "/metrics"])
def test_somebody_elses_job_is_not_found(stranger: httpx.Client, job: Body, action: str) -> None:
    refused(stranger.get(f"/v1/jobs/{job['id']}{action}"), 404)


@pytest.mark.parametrize("action", ["cancel", "retry", "pause", "resume"])
def test_somebody_elses_job_cannot_be_changed(
    client: httpx.Client, stranger: httpx.Client, job: Body, action: str
) -> None:
    refused(stranger.post(f"/v1/jobs/{job['id']}/{action}"), 404)
    assert client.get(f"/v1/jobs/{job['id']}").json()["state"] == "queued"


def test_a_job_that_waits_says_for_what_and_when_it_is_looked_for(
    api: RunningApi, client: httpx.Client, job: Body
) -> None:
    lease = claim(api.database, job["id"])
    with api.database.write() as session:
        transitions.wait(session, lease, Waiting(WaitKind.HUB, "the Hub answered 429.", "publish"), 60)
    found = client.get(f"/v1/jobs/{job['id']}").json()
    assert (found["state"], found["attempt"]) == ("queued", 0)
    assert found["waiting"] == {
        "kind": "hub", "message": "the Hub answered 429.", "stage": "publish", "way_out": None,
    }  # fmt: skip
    assert found["claimable_at"] > found["waiting_since"] + 59


def test_a_cancel_that_came_too_late_is_told(api: RunningApi, client: httpx.Client, job: Body) -> None:
    lease = claim(api.database, job["id"])
    assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["cancel_came_too_late"] is False
    with api.database.write() as session:
        transitions.succeed(session, lease, {"commit": "c0ffee"}, {}, [])
    assert client.get(f"/v1/jobs/{job['id']}").json()["cancel_came_too_late"] is True
