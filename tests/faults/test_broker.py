"""Redis goes away under a running installation and comes back empty."""

from __future__ import annotations

from pathlib import Path

from publisher.store.states import JobState
from tests import servers
from tests.faults.installation import Installation


def test_broker_that_restarts_empty_under_a_running_job_costs_nothing(tmp_path: Path) -> None:
    port = servers.free_port()
    installation = Installation.create(
        tmp_path, f"sqlite:///{tmp_path / 'publisher.db'}", f"redis://127.0.0.1:{port}/0"
    )
    try:
        with servers.redis_server(tmp_path, port):
            installation.start_api()
            installation.register()
            worker = installation.start_worker()
            during = installation.make_variant("default/during", tokens=8_000)
            installation.wait_until_aligning(during)
        # accepted while the broker is down
        after = installation.make_variant("default/after", tokens=64)
        # while the reaper tries to send it, it is marked as sent
        installation.wait_for(after, lambda job: job.dispatched_at is None, "no mark of being sent")
        assert installation.wait_for_state(during, JobState.SUCCEEDED).attempt == 1
        with servers.redis_server(tmp_path, port):
            assert installation.wait_for_state(after, JobState.SUCCEEDED).state is JobState.SUCCEEDED
        assert worker.is_running()
    finally:
        installation.stop()
