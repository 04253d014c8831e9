"""`publisher up` supervises its processes, and they end with it however it ends."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import psutil
import pytest

from publisher.client.up import is_ready
from tests.e2e.conftest import Service, start_service, wait_ready

pytestmark = pytest.mark.e2e


def until_ready_again(service: Service) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if is_ready(service.url):
                return
        except httpx.TransportError:
            continue
    pytest.fail("the API did not come back")


def test_no_process_outlives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    service = start_service(tmp_path / "data")
    wait_ready(service)
    children = psutil.Process(service.process.pid).children(recursive=True)
    assert len(children) >= 2
    service.process.kill()
    service.process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


def test_a_process_that_was_killed_is_started_again(tmp_path: Path) -> None:
    service = start_service(tmp_path / "data")
    try:
        wait_ready(service)
        worker, api = service.worker(), service.api()
        api.kill()
        api.wait()
        until_ready_again(service)
        assert service.api().pid != api.pid
        assert service.worker().pid == worker.pid
    finally:
        service.stop()
    assert service.process.returncode == 0
