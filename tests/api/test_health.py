"""What load balancers and Prometheus ask, with everything there and with the broker away."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from publisher.api import watchdog
from tests.api.conftest import Body, RunningApi, created, recipe, serve_api, write_corpus
from tests.jobs.rows import add_sized_job, add_worker
from tests.models import tiny_llama
from tests.servers import wait_until


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_ready_when_everything_is_there(tmp_path: Path) -> None:
    with serve_api(tmp_path) as api:  # one that no other test has given workers
        _is_ready(api)


def _is_ready(api: RunningApi) -> None:
    assert httpx.get(f"{api.url}/healthz").json() == {"status": "ok"}
    answer = httpx.get(f"{api.url}/readyz")
    assert answer.status_code == 200
    said = answer.json()
    assert said.pop("age") < 30
    everything = {"database": "ok", "broker": "ok", "storage": "ok", "disk": "ok"}
    assert said.pop("capacity").startswith("no worker is running")
    assert said == {"status": "ready", "workers": 0} | everything


def test_readiness_names_the_queues_whose_jobs_no_worker_holds_and_stays_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "CAPACITY_INTERVAL", 0.1)
    with serve_api(tmp_path, reaper_seconds=0.1) as api:
        for memory in (60, 60, 3):
            add_sized_job(api.database, memory * 2**30)
        wait_until(lambda: "queue" in capacity(api), "the jobs' word", 30)
        assert capacity(api) == "no worker is running; 1 of queue 4, 2 of queue 64 wait for one"
        add_worker(api.database, "w", 6 * 2**30)
        wait_until(lambda: "no worker" not in capacity(api), "the worker's row", 30)
        wait_until(lambda: "queue 4" not in capacity(api), "a worker for the small one", 30)
        assert capacity(api) == "2 of queue 64 wait for a worker that holds them"


def capacity(api: RunningApi) -> str:
    answer = httpx.get(f"{api.url}/readyz")
    assert answer.status_code == 200
    return str(answer.json()["capacity"])


def test_jobs_are_counted_by_state(api: RunningApi, client: httpx.Client, variant_body: Body) -> None:
    before = number_of_jobs(api, "queued")
    created(client.post("/v1/variants", json=variant_body))
    assert number_of_jobs(api, "queued") == before + 1
    assert "process_resident_memory_bytes" in httpx.get(f"{api.url}/metrics").text


def number_of_jobs(api: RunningApi, state: str) -> float:
    lines = httpx.get(f"{api.url}/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith(f'publisher_jobs{{state="{state}"}}')]
    return float(line.split()[-1])


def test_without_its_broker_the_service_accepts_jobs_and_says_so(tmp_path: Path) -> None:
    with (
        serve_api(tmp_path, broker_url=f"redis://127.0.0.1:{closed_port()}/0") as api,
        (tenant := api.tenant()).client() as client,
    ):
        answer = httpx.get(f"{api.url}/readyz", timeout=30)
        assert answer.status_code == 503
        assert answer.json()["broker"].startswith("away")
        assert answer.json()["database"] == "ok"
        base = created(client.post("/v1/base-models", json={"path": str(tiny_llama(api.roots / "tiny"))}))
        corpus = write_corpus(api.roots / "novel.jsonl")
        created(client.post("/v1/corpora", json={"name": "novel", "path": str(corpus)}))
        body = {"base_model_id": base["id"], "recipe": recipe(), "publish": {"repo_id": f"{tenant.name}/b"}}
        variant = created(client.post("/v1/variants", json=body))
        assert client.get(f"/v1/jobs/{variant['job']['id']}").json()["state"] == "queued"


def test_answers_carry_security_headers(api: RunningApi, client: httpx.Client) -> None:
    headers = client.get("/v1/jobs").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'self'" in headers["content-security-policy"]
