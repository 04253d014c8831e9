"""Workers and their jobs' processes are killed, stopped and shut down; nothing is lost, nothing published twice."""

from __future__ import annotations

import signal

import pytest

from publisher.jobs.broker import RUN_JOB, create_celery
from publisher.store.states import JobState
from tests import servers
from tests.faults.installation import CANCEL_GRACE_SECONDS, LEASE_SECONDS, Installation, child_of, is_gone
from tests.jobs import rows

SECONDS_LONG = 8_000  # tokens: 125 steps
ENDLESS = 100_000


def test_job_of_a_killed_worker_is_finished_by_another(installation: Installation) -> None:
    first = installation.start_worker("first")
    job_id = installation.make_variant("default/worker-killed", tokens=SECONDS_LONG)
    installation.wait_until_aligning(job_id)
    child = child_of(first)
    first.kill()
    first.wait()
    servers.wait_until(lambda: is_gone(child), "end of the job's process with its worker", 5)
    installation.start_worker("second")
    job = installation.wait_for_state(job_id, JobState.SUCCEEDED)
    assert (job.state, job.attempt, job.worker) == (JobState.SUCCEEDED, 2, "celery@second")
    assert rows.states(installation.database, job_id) == ["queued", "running", "queued", "running", "succeeded"]
    numbers = [event.seq for event in rows.read_events(installation.database, job_id)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert installation.publications("default/worker-killed") == 1


@pytest.mark.long
def test_job_whose_process_is_killed_is_tried_again_and_says_why(installation: Installation) -> None:
    worker = installation.start_worker()
    job_id = installation.make_variant("default/process-killed", tokens=SECONDS_LONG)
    installation.wait_until_aligning(job_id)
    child_of(worker).kill()
    job = installation.wait_for_state(job_id, JobState.SUCCEEDED)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    told = [event.data for event in rows.read_events(installation.database, job_id)]
    failures = [data["failure"] for data in told if "failure" in data]
    assert [failure["blame"] for failure in failures] == ["infrastructure"]
    assert failures[0]["stage"] == "align"
    assert "killed" in failures[0]["message"]
    assert "memory" in failures[0]["message"]
    assert worker.is_running()


@pytest.mark.long
def test_job_that_does_not_react_to_its_cancel_is_stopped_hard(installation: Installation) -> None:
    worker = installation.start_worker()
    job_id = installation.make_variant("default/hanging", tokens=ENDLESS)
    installation.wait_until_aligning(job_id)
    child = child_of(worker)
    child.suspend()
    with installation.client() as client:
        client.post(f"/v1/jobs/{job_id}/cancel")
    job = installation.wait_for_state(job_id, JobState.CANCELLED, CANCEL_GRACE_SECONDS + LEASE_SECONDS)
    assert job.state is JobState.CANCELLED
    servers.wait_until(lambda: is_gone(child), "end of the hanging process", 5)
    assert installation.publications("default/hanging") == 0


@pytest.mark.long
def test_paused_job_frees_its_worker_and_goes_on_from_what_it_saved(installation: Installation) -> None:
    installation.start_worker()
    job_id = installation.make_variant("default/paused", tokens=SECONDS_LONG)
    installation.wait_until_aligning(job_id)
    with installation.client() as client:
        client.post(f"/v1/jobs/{job_id}/pause")
        job = installation.wait_for_state(job_id, JobState.PAUSED)
        assert (job.state, job.attempt, job.worker, job.stage) == (JobState.PAUSED, 0, None, "align")
        following = installation.make_variant("default/meanwhile", tokens=64)
        assert installation.wait_for_state(following, JobState.SUCCEEDED).state is JobState.SUCCEEDED
        assert installation.job(job_id).state is JobState.PAUSED
        client.post(f"/v1/jobs/{job_id}/resume")
    job = installation.wait_for_state(job_id, JobState.SUCCEEDED)
    assert (job.state, job.attempt, job.lease_token) == (JobState.SUCCEEDED, 1, 2)
    told = [event.data for event in rows.read_events(installation.database, job_id) if event.kind == "metric"]
    steps = [metric["step"] for metric in told if metric["name"] == "loss"]
    assert steps == list(range(steps[0], steps[0] + len(steps)))  # none was trained twice
    assert installation.publications("default/paused") == 1


@pytest.mark.long
def test_job_that_does_not_react_to_its_pause_is_stopped_hard_and_paused(installation: Installation) -> None:
    worker = installation.start_worker()
    job_id = installation.make_variant("default/hanging-pause", tokens=ENDLESS)
    installation.wait_until_aligning(job_id)
    child = child_of(worker)
    child.suspend()
    with installation.client() as client:
        client.post(f"/v1/jobs/{job_id}/pause")
    job = installation.wait_for_state(job_id, JobState.PAUSED, CANCEL_GRACE_SECONDS + LEASE_SECONDS)
    assert (job.state, job.attempt, job.failure) == (JobState.PAUSED, 0, None)
    servers.wait_until(lambda: is_gone(child), "end of the hanging process", 5)
    with installation.client() as client:
        client.post(f"/v1/jobs/{job_id}/cancel")
    assert installation.job(job_id).state is JobState.CANCELLED


@pytest.mark.long
def test_process_that_hangs_until_its_lease_ran_out_cannot_write_any_more(installation: Installation) -> None:
    worker = installation.start_worker("hanging")
    job_id = installation.make_variant("default/outdated", tokens=SECONDS_LONG)
    installation.wait_until_aligning(job_id)
    child = child_of(worker)
    # the worker hangs, too, or it would kill its child as soon as the lease is lost
    worker.suspend()
    child.suspend()
    installation.start_worker("awake")
    job = installation.wait_for(job_id, lambda job: job.lease_token == 2, "second claim")
    child.resume()
    servers.wait_until(lambda: is_gone(child), "end of the process without a lease", 30)
    worker.resume()
    job = installation.wait_for_state(job_id, JobState.SUCCEEDED)
    assert (job.state, job.worker) == (JobState.SUCCEEDED, "celery@awake")
    assert rows.states(installation.database, job_id).count("succeeded") == 1
    assert installation.publications("default/outdated") == 1


@pytest.mark.long
def test_worker_that_shuts_down_gives_its_job_back_at_no_cost(installation: Installation) -> None:
    worker = installation.start_worker()
    job_id = installation.make_variant("default/shutdown", tokens=SECONDS_LONG)
    installation.wait_until_aligning(job_id)
    worker.send_signal(signal.SIGTERM)
    worker.wait(30)
    job = installation.job(job_id)
    assert (job.state, job.attempt, job.failure) == (JobState.QUEUED, 0, None)
    installation.start_worker()
    job = installation.wait_for_state(job_id, JobState.SUCCEEDED)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
    assert installation.publications("default/shutdown") == 1


@pytest.mark.long
def test_task_delivered_many_times_runs_and_publishes_once(installation: Installation) -> None:
    job_id = installation.make_variant("default/delivered-twice", tokens=SECONDS_LONG)
    celery = create_celery(installation.settings)
    for _ in range(3):
        celery.send_task(RUN_JOB, args=[job_id])
    installation.start_worker("one")
    installation.start_worker("two")
    installation.wait_for_state(job_id, JobState.SUCCEEDED)
    celery.send_task(RUN_JOB, args=[job_id])
    following = installation.make_variant("default/following", tokens=64)
    installation.wait_for_state(following, JobState.SUCCEEDED)
    assert rows.states(installation.database, job_id) == ["queued", "running", "succeeded"]
    assert installation.job(job_id).lease_token == 1
    assert installation.publications("default/delivered-twice") == 1


@pytest.mark.long
def test_job_whose_message_the_broker_lost_runs_nevertheless(installation: Installation) -> None:
    job_id = installation.make_variant("default/wiped", tokens=64)
    servers.wait_until(lambda: installation.job(job_id).dispatched_at is not None, "dispatch")
    installation.wipe_broker()
    installation.start_worker()
    assert installation.wait_for_state(job_id, JobState.SUCCEEDED).state is JobState.SUCCEEDED
