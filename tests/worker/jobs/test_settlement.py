"""Cancel and publication agree, whenever the cancel comes and whatever is lost: what the job says is at the Hub."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from huggingface_hub import CommitOperationAdd
from pydantic import SecretStr
from sqlalchemy import update

from publisher.hub.changes import AddFile, Change
from publisher.hub.commits import CommittedFile
from publisher.hub.storage import HubStorage
from publisher.jobs import service as job_service
from publisher.jobs.publishing import TOO_LATE, Intent
from publisher.jobs.reaper import Reaper
from publisher.store.models import Job
from publisher.store.states import JobState
from tests.jobs import rows
from tests.worker.jobs.publishing import KEY, Publishing
from worker.jobs.supervision import start_child

COMMIT = "/commit/main"


def test_job_publishes_once_and_says_where(jobs: Publishing) -> None:
    job_id = jobs.add_job()
    jobs.run(job_id)
    assert jobs.agreed(job_id) is JobState.SUCCEEDED


def test_cancel_before_the_intent_publishes_nothing(jobs: Publishing) -> None:
    job_id = jobs.add_job()
    jobs.middle.before["/preupload/"] = lambda: jobs.cancel(job_id)
    jobs.run(job_id)
    assert jobs.agreed(job_id) is JobState.CANCELLED
    assert not any(COMMIT in path for path in jobs.middle.seen)


@pytest.mark.parametrize("part", [COMMIT, "/resolve/"])
def test_cancel_once_the_commit_is_on_its_way_comes_too_late(jobs: Publishing, part: str) -> None:
    """Between the intent and the request's arrival, and while the files are read back."""
    job_id = jobs.add_job()
    jobs.middle.before[part] = lambda: jobs.cancel(job_id)
    jobs.run(job_id)
    assert jobs.agreed(job_id) is JobState.SUCCEEDED
    assert jobs.logs(job_id)[-1] == TOO_LATE
    assert rows.load(jobs.database, job_id).cancel_requested_at is not None


@pytest.mark.parametrize("cancelled", [True, False])
def test_commit_whose_answer_is_lost_is_the_publication(jobs: Publishing, cancelled: bool) -> None:
    job_id = jobs.add_job()
    jobs.middle.lose = COMMIT
    if cancelled:
        jobs.middle.before[COMMIT] = lambda: jobs.cancel(job_id)
    job = jobs.run(job_id)
    assert (job.state, job.attempt) == ((JobState.CANCELLING, 1) if cancelled else (JobState.QUEUED, 0))
    assert job.waiting is not None
    jobs.middle.reset()
    jobs.run(job_id)
    assert jobs.agreed(job_id) is JobState.SUCCEEDED


@pytest.mark.parametrize("cancelled", [True, False])
def test_commit_that_never_arrived_is_none(jobs: Publishing, cancelled: bool) -> None:
    job_id = jobs.add_job()
    jobs.middle.swallow = COMMIT
    jobs.run(job_id)
    if cancelled:
        jobs.cancel(job_id)
        assert rows.load(jobs.database, job_id).state is JobState.CANCELLING
    held = jobs.middle.swallowed
    jobs.middle.reset()
    jobs.run(job_id)
    assert jobs.agreed(job_id) is (JobState.CANCELLED if cancelled else JobState.SUCCEEDED)
    jobs.middle.swallowed = held
    assert asyncio.run(jobs.middle.deliver()) == 401  # it comes late, under a lease that is over
    jobs.agreed(job_id)


def test_commit_is_known_again_below_what_others_committed(jobs: Publishing) -> None:
    job_id = jobs.add_job()
    jobs.middle.lose = COMMIT
    jobs.run(job_id)
    jobs.middle.reset()
    jobs.hub.create_commit(jobs.repo_id(job_id), [CommitOperationAdd("README.md", b"edited")], commit_message="by hand")
    jobs.cancel(job_id)
    jobs.run(job_id)
    assert jobs.agreed(job_id) is JobState.SUCCEEDED


def test_cancelled_job_whose_commit_is_refused_since_others_were_faster_publishes_nothing(jobs: Publishing) -> None:
    job_id = jobs.add_job()

    def interfere() -> None:
        jobs.cancel(job_id)
        repository = HubStorage(jobs.settings.hub_dir).open_repository(jobs.repo_id(job_id))
        head = repository.commit_at("main")
        # without a request: the server answers none while this one is held
        file = CommittedFile.regular(b"a", repository.blobs.put(b"a"))
        repository.commit(Change("main", "by hand", "", "org", (AddFile("a.txt", file),), parent=head.id))

    jobs.middle.before[COMMIT] = interfere
    jobs.run(job_id)
    assert jobs.agreed(job_id) is JobState.CANCELLED


def test_nobody_decides_while_the_hub_is_away(jobs: Publishing) -> None:
    job_id = jobs.add_job()
    jobs.middle.lose = COMMIT
    jobs.middle.before[COMMIT] = lambda: jobs.cancel(job_id)
    jobs.run(job_id)
    jobs.middle.reset()
    jobs.middle.answers["/hub/"] = (503, {"retry-after": "9"})
    for _ in range(jobs.settings.max_attempts + 1):
        job = jobs.run(job_id, jobs.settings.model_copy(update={"hub_patience_seconds": 1e-9}))
        assert (job.state, job.lease_expires_at) == (JobState.CANCELLING, None)
        assert job.waiting is not None
        assert (job.waiting["kind"], job.waiting["stage"]) == ("hub", "publish")
    jobs.middle.reset()
    jobs.run(job_id)
    assert jobs.agreed(job_id) is JobState.SUCCEEDED


def test_other_hubs_are_given_time_for_what_is_still_on_its_way(jobs: Publishing) -> None:
    """They know nothing of leases: a commit that is not there may come until it has had its time."""
    elsewhere = {"hub_endpoint": jobs.settings.resolved_hub_endpoint, "hub_token": SecretStr(KEY)}
    settings = jobs.settings.model_copy(update=elsewhere)
    job_id = jobs.add_job()
    jobs.middle.swallow = COMMIT
    jobs.middle.before[COMMIT] = lambda: jobs.cancel(job_id)
    jobs.run(job_id, settings)
    held = jobs.middle.swallowed
    jobs.middle.reset()
    job = jobs.run(job_id, settings)
    assert job.state is JobState.CANCELLING
    assert job.waiting is not None
    assert "may still arrive" in job.waiting["message"]
    jobs.middle.swallowed = held
    assert asyncio.run(jobs.middle.deliver()) == 200
    jobs.run(job_id, settings)
    assert jobs.agreed(job_id) is JobState.SUCCEEDED


def test_other_hubs_time_ends(jobs: Publishing) -> None:
    elsewhere = {"hub_endpoint": jobs.settings.resolved_hub_endpoint, "hub_token": SecretStr(KEY)}
    settings = jobs.settings.model_copy(update=elsewhere)
    job_id = jobs.add_job()
    jobs.middle.swallow = COMMIT
    jobs.run(job_id, settings)
    jobs.cancel(job_id)
    jobs.middle.reset()
    intent = Intent.of(rows.load(jobs.database, job_id).publishing)
    assert intent is not None
    assert intent.lost_at is not None
    earlier = intent.model_copy(update={"lost_at": intent.lost_at - settings.hub_settling_seconds})
    with jobs.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(publishing=earlier.as_json()))
    jobs.run(job_id, settings)
    assert jobs.agreed(job_id) is JobState.CANCELLED


def test_repository_that_was_deleted_meanwhile_holds_nothing(jobs: Publishing) -> None:
    job_id = jobs.add_job()
    jobs.middle.lose = COMMIT
    jobs.run(job_id)
    jobs.middle.reset()
    jobs.hub.delete_repo(jobs.repo_id(job_id))
    jobs.cancel(job_id)
    jobs.run(job_id)
    assert jobs.agreed(job_id) is JobState.CANCELLED


def test_hub_that_the_settings_do_not_name_any_more_is_not_shown_another_s_token(jobs: Publishing) -> None:
    job_id = jobs.add_job()
    jobs.middle.lose = COMMIT
    jobs.run(job_id)
    jobs.middle.reset()
    moved = {"hub_endpoint": "http://127.0.0.1:9", "hub_token": SecretStr("hf_of-the-new-one")}
    job = jobs.run(job_id, jobs.settings.model_copy(update=moved))
    assert job.waiting is not None
    assert (job.state, job.waiting["kind"]) == (JobState.QUEUED, "credential")
    assert jobs.middle.seen == []
    jobs.run(job_id)
    assert jobs.agreed(job_id) is JobState.SUCCEEDED


def test_publication_that_comes_back_damaged_is_neither_cancelled_nor_succeeded(jobs: Publishing) -> None:
    job_id = jobs.add_job()
    jobs.middle.before[COMMIT] = lambda: jobs.cancel(job_id)
    jobs.middle.answers["/model.safetensors"] = (200, {"content-length": "0"})
    job = jobs.run(job_id)
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert "is not what was sent: model.safetensors came back with 0 bytes" in job.failure["message"]
    jobs.middle.reset()
    with jobs.database.write() as session:
        job_service.retry(session, job_id)
    jobs.cancel(job_id)
    jobs.run(job_id)
    assert jobs.agreed(job_id) is JobState.SUCCEEDED


@pytest.mark.parametrize("cancelled", [True, False])
@pytest.mark.parametrize("moment", ["commit never arrived", "commit made", "read back"])
def test_process_that_is_killed_while_it_publishes(
    jobs: Publishing, monkeypatch: pytest.MonkeyPatch, cancelled: bool, moment: str
) -> None:
    """kill -9: the reaper finds the lease over, another worker asks the Hub."""
    job_id = jobs.add_job()
    for name in ("data_dir", "broker_url", "public_url", "worker_device"):
        monkeypatch.setenv(f"PUBLISHER_{name.upper()}", str(getattr(jobs.settings, name)))
    lease = rows.claim(jobs.database, job_id)

    def kill() -> None:
        if cancelled:
            jobs.cancel(job_id)
        os.killpg(process.pid, signal.SIGKILL)

    arrived = moment != "commit never arrived"
    if moment == "commit made":
        jobs.middle.lose, jobs.middle.after[COMMIT] = COMMIT, kill
    elif arrived:
        jobs.middle.before["/resolve/"] = kill
    else:
        jobs.middle.swallow, jobs.middle.before[COMMIT] = COMMIT, kill
    process = start_child(lease)
    assert process.wait(120) == -signal.SIGKILL
    jobs.middle.reset()
    rows.let_pass(jobs.database, job_id, 3600)
    Reaper(jobs.database, jobs.settings.model_copy(update={"max_attempts": 1})).run_once()
    job = rows.load(jobs.database, job_id)
    assert job.state is (JobState.CANCELLING if cancelled else JobState.QUEUED)
    jobs.run(job_id)
    if arrived or cancelled:
        assert jobs.agreed(job_id) is (JobState.SUCCEEDED if arrived else JobState.CANCELLED)
    else:
        assert rows.load(jobs.database, job_id).state is JobState.FAILED  # its tries were used up
        assert jobs.publications(job_id) == []
