"""Several workers on one host, and a broker that forgets: jobs find the worker that is for them."""

from __future__ import annotations

import pytest

from publisher.store.states import JobState
from tests.faults.installation import Installation

#: a start of several workers for each; tests/jobs holds the same without processes
pytestmark = pytest.mark.long


def test_a_job_that_the_broker_forgot_goes_to_the_idle_one_of_two_workers_on_one_host(
    installation: Installation,
) -> None:
    """Both are started as people do, without a name, and have one each."""
    first = installation.start_nameless_worker("first")
    long = installation.make_variant("default/long", tokens=100_000)
    installation.wait_until_aligning(long)
    restricted = installation.start_nameless_worker("second", worker_queues="4096")
    waiting = installation.make_variant("default/restricted", tokens=64)
    job = installation.wait_for(waiting, lambda job: job.dispatched_at is not None, "dispatch")
    installation.wipe_broker()
    third = installation.start_nameless_worker("third")
    assert len({first, restricted, third}) == 3
    job = installation.wait_for_state(waiting, JobState.SUCCEEDED)
    assert (job.state, job.worker) == (JobState.SUCCEEDED, third)
    assert installation.job(long).worker == first
    with installation.client() as client:
        client.post(f"/v1/jobs/{long}/cancel")
    installation.wait_for_state(long, JobState.CANCELLED)


def test_a_job_waits_for_a_worker_that_takes_it_and_says_so(installation: Installation) -> None:
    installation.forget_workers()
    installation.start_nameless_worker("elsewhere", worker_queues="cpu")
    job_id = installation.make_variant("default/waits", tokens=64)
    job = installation.wait_for(job_id, lambda job: job.waiting is not None, "a word of what it waits for")
    assert job.waiting is not None
    assert job.waiting["message"] == "no running worker takes jobs of queue 1."
    taker = installation.start_nameless_worker("taker")
    job = installation.wait_for_state(job_id, JobState.SUCCEEDED)
    assert (job.state, job.worker, job.attempt, job.waiting) == (JobState.SUCCEEDED, taker, 1, None)
