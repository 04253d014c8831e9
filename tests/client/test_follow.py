"""`publisher follow`: what a job tells, as lines, and an exit status that scripts can go by."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

from publisher.client.follow import follow
from tests.client.service import Scripted, Stream, scripted_service
from tests.servers import STOPPABLE, serve

STAGES: list[tuple[str, dict[str, Any]]] = [
    ("state", {"state": "running", "attempt": 1}),
    ("stage", {"stage": "fetch", "state": "reused"}),
    ("stage", {"stage": "align", "state": "started"}),
    ("progress", {"stage": "align", "done": 512, "total": 1024, "unit": "tokens"}),
    ("metric", {"name": "loss", "step": 1, "value": 2.5}),
    ("metric", {"name": "loss", "step": 2, "value": None}),
    ("metric", {"name": "tokens_per_second", "step": 2, "value": 99.0}),
    ("log", {"message": "[bold]Held-out[/bold] loss: 2.0"}),
    ("newer", {"kind": "than this client"}),
    ("stage", {"stage": "align", "state": "finished", "seconds": 12.34}),
]


@pytest.fixture
def service() -> Iterator[Scripted]:
    with scripted_service() as service:
        yield service


def run(service: Scripted, *events: tuple[str, dict[str, Any]]) -> Result:
    service.answers = [Stream(tuple((id, kind, {"at": float(id)} | data) for id, (kind, data) in enumerate(events, 1)))]
    return CliRunner().invoke(follow, ["job_1", "--url", service.url, "--key", "k"])


def test_job_that_succeeds_is_told_stage_by_stage(service: Scripted) -> None:
    result = run(service, *STAGES, ("state", {"state": "succeeded"}))
    assert result.exit_code == 0, result.output
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert "fetch      reused" in lines
    assert "align      finished in 12.3 s" in lines
    assert "  [bold]Held-out[/bold] loss: 2.0" in lines, "what a stage says is no markup"
    assert lines[-1] == "job job_1 succeeded"


def test_step_without_a_finite_loss_is_said_to_be_one(service: Scripted) -> None:
    later = ("progress", {"stage": "align", "done": 768, "total": 1024, "unit": "tokens", "at": 100.0})
    result = run(service, *STAGES[:6], later, ("state", {"state": "cancelled"}))
    assert "step 2, loss not finite" in result.stdout


@pytest.mark.parametrize(
    ("last", "says"),
    [
        ({"state": "failed", "failure": {"message": "the Hub refuses"}}, "job job_1 failed: the Hub refuses"),
        ({"state": "cancelled"}, "job job_1 cancelled: no reason given"),
    ],
)
def test_job_that_does_not_succeed_is_an_error_with_its_reason(
    service: Scripted, last: dict[str, Any], says: str
) -> None:
    result = run(service, *STAGES, ("state", last))
    assert result.exit_code == 1
    assert str(result.exception) == says


def test_another_attempt_is_announced(service: Scripted) -> None:
    again = ("state", {"state": "running", "attempt": 2})
    result = run(service, *STAGES, again, ("state", {"state": "succeeded", "attempt": 2}))
    assert "attempt 2: running" in result.stdout
    assert "attempt 1" not in result.stdout


def test_a_service_that_is_away_is_told_at_once_with_the_way_to_another(service: Scripted) -> None:
    service.answers = [Response("Bad Gateway", 502), Stream(((1, "state", {"state": "succeeded", "at": 1.0}),))]
    result = CliRunner().invoke(follow, ["job_1", "--url", service.url, "--key", "k"])
    assert result.exit_code == 0, result.output
    assert f"{service.url} is away (GET /v1/jobs/job_1/events: HTTP 502)" in result.stderr
    assert "PUBLISHER_URL" in result.stderr


def test_ctrl_c_says_that_the_job_goes_on_and_how_to_come_back() -> None:
    """A stream that does not end by itself."""
    with stream_without_end() as url:
        command = [sys.executable, "-m", "publisher.client.main", "follow", "job_1", "--url", url, "--key", "k"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen([*STOPPABLE, *command], **pipes) as process:
            assert process.stdout is not None
            assert "hello" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Job job_1 goes on" in said
    assert "`publisher follow job_1`" in said
    assert "Traceback" not in said


@contextmanager
def stream_without_end() -> Iterator[str]:
    """The address of a service whose job says hello, and then nothing more until the block is left."""
    app, over = FastAPI(), threading.Event()

    @app.get("/v1/jobs/{id}/events")
    def events(id: str) -> StreamingResponse:
        def lines() -> Iterator[bytes]:
            yield b'id: 1\nevent: log\ndata: {"message": "hello"}\n\n'
            over.wait(60)

        return StreamingResponse(lines(), media_type="text/event-stream")

    with serve(app) as port:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            over.set()
