"""Jobs that are cut off: nothing lost, nothing published twice, nothing published that was not wanted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi

from publisher.client.client import Client
from publisher.client.events import Event
from tests.e2e.conftest import Service, recipe

pytestmark = pytest.mark.e2e

LONG = {
    "corpora": [{"name": "general"}],
    "tokens": 49152,
    "sequence_length": 64,
    "batch_tokens": 256,
    "learning_rate": 1e-3,
}


def request(base_model: dict[str, Any], repo_id: str, alignment: dict[str, Any]) -> dict[str, Any]:
    changed = recipe(alignment=alignment, evaluation=None)
    return {"base_model_id": base_model["id"], "recipe": changed, "publish": {"repo_id": repo_id, "private": False}}


def follow_until_aligning(client: Client, job_id: str) -> Event:
    """Return at the third loss that the align stage reports."""
    losses = 0
    for event in client.follow_job(job_id):
        losses += event.kind == "metric" and event.data["name"] == "loss"
        if losses == 3:
            return event
    pytest.fail("the job ended before it was interrupted")


def test_a_worker_killed_while_aligning_finishes_after_its_restart(
    service: Service, base_model: dict[str, Any], corpora: dict[str, Path]
) -> None:
    with service.client() as client:
        made = client.post("/v1/variants", request(base_model, "e2e/killed", LONG))
        last = follow_until_aligning(client, made["job"]["id"])
        worker = service.worker()
        family = [worker, *worker.children(recursive=True)]
        worker.kill()
        rest = list(client.follow_job(made["job"]["id"], after=last.id))
        job = client.get(f"/v1/jobs/{made['job']['id']}")
    assert rest[-1].data["state"] == "succeeded", rest[-1].data
    assert rest[0].id == last.id + 1
    assert job["attempt"] == 2
    assert not any(process.is_running() and process.status() != "zombie" for process in family)
    reused = {e.data["stage"] for e in rest if e.kind == "stage" and e.data["state"] == "reused"}
    assert {"fetch", "calibrate", "prune"} <= reused
    commits = HfApi(endpoint=f"{service.url}/hub").list_repo_commits("e2e/killed")
    assert len([commit for commit in commits if "initial" not in commit.title.lower()]) == 1


def test_a_cancelled_job_stops_within_seconds_and_publishes_nothing(
    service: Service, base_model: dict[str, Any], corpora: dict[str, Path]
) -> None:
    endless = LONG | {"tokens": 81920, "batch_tokens": 64, "learning_rate": 9e-4}
    with service.client() as client:
        made = client.post("/v1/variants", request(base_model, "e2e/cancelled", endless))
        last = follow_until_aligning(client, made["job"]["id"])
        asked = time.monotonic()
        client.post(f"/v1/jobs/{made['job']['id']}/cancel")
        rest = list(client.follow_job(made["job"]["id"], after=last.id))
        waited = time.monotonic() - asked
    assert rest[-1].data["state"] == "cancelled"
    assert waited < 20
    assert httpx.get(f"{service.url}/hub/api/models/e2e/cancelled").status_code in {401, 404}
