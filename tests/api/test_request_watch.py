"""The log of a real API process: one object a line, each saying whose request it is about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import free_port, wait_until

KEY = "loram_key-of-the-request-watch-test"


@dataclass
class ApiProcess:
    url: str
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def line(self, **wanted: Any) -> dict[str, Any]:
        """The one line with these fields, once it is written."""
        found: list[dict[str, Any]] = []

        def written() -> bool:
            found[:] = [line for line in self.lines() if wanted.items() <= line.items()]
            return bool(found)

        wait_until(written, f"a line with {wanted}", 10)
        (line,) = found
        return line


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    folder, port = tmp_path_factory.mktemp("api"), free_port()
    environment = os.environ | {"PUBLISHER_DATA_DIR": str(folder / "data"), "PUBLISHER_BOOTSTRAP_KEY": KEY}
    command = [sys.executable, "-m", "uvicorn", "publisher.app:app", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    api = ApiProcess(f"http://127.0.0.1:{port}", folder / "log")

    def answers() -> bool:
        try:
            return httpx.get(f"{api.url}/healthz").is_success
        except httpx.TransportError:
            assert running.poll() is None, api.log.read_text()
            return False

    try:
        wait_until(answers, "an answer")
        yield api
    finally:
        running.terminate()
        running.wait()


def get(process: ApiProcess, path: str, **headers: str) -> httpx.Response:
    authorization = {"Authorization": f"Bearer {KEY}"}
    return httpx.get(process.url + path, headers=authorization | {n.replace("_", "-"): v for n, v in headers.items()})


def test_a_request_is_one_line_with_its_id_tenant_and_route(process: ApiProcess) -> None:
    assert get(process, "/v1/jobs/job_000?", X_Request_Id="mine-1").headers["x-request-id"] == "mine-1"
    line = process.line(request_id="mine-1")
    assert line["tenant"].startswith("ten_")
    assert line["key_id"].startswith("key_")
    assert (line["method"], line["route"], line["status"]) == ("GET", "/v1/jobs/{id}", 404)
    assert (line["service"], line["level"], line["job"]) == ("api", "info", "job_000")


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/families", "/v1/families"),
        ("/login", "/login"),
        ("/hub/api/models/a/b", "/hub/api/models/{namespace}/{name}"),
        ("/nowhere/at/all", "none"),
    ],
)
def test_a_line_names_the_template_of_its_path(process: ApiProcess, path: str, route: str) -> None:
    answer = get(process, path)
    assert process.line(request_id=answer.headers["x-request-id"])["route"] == route


def test_an_id_that_is_none_is_replaced(process: ApiProcess) -> None:
    answer = get(process, "/v1/families", X_Request_Id='"} forged')
    assert answer.headers["x-request-id"].startswith("req_")


def test_queries_and_keys_are_in_no_line_and_every_line_is_an_object(process: ApiProcess) -> None:
    identity = get(process, "/v1/jobs?cursor=planted-in-query").headers["x-request-id"]
    process.line(request_id=identity)
    written = process.log.read_text()
    assert "planted-in-query" not in written
    assert KEY not in written
    # but for the sentence about the first key, which is for the person who starts it
    assert [line for line in written.splitlines() if line and not line.startswith(("{", "First start"))] == []


def test_what_machines_ask_every_few_seconds_is_not_told(process: ApiProcess) -> None:
    last = [get(process, path).headers["x-request-id"] for path in ("/healthz", "/readyz", "/metrics", "/v1/families")]
    process.line(request_id=last[-1])
    assert not [line for line in process.lines() if line.get("request_id") in last[:-1]]
