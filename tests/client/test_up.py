"""`publisher up` supervises its processes, and they end with it however it ends."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import start_service, wait_ready

pytestmark = pytest.mark.e2e


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
        wait_ready(service)
        assert service.api().pid != api.pid
        assert service.worker().pid == worker.pid
    finally:
        service.stop()
    assert service.process.returncode == 0
