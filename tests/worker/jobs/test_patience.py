"""A Hub that is away and a credential that is refused are waited for: no try is counted, nothing computed is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from pydantic import SecretStr
from sqlalchemy import update

from publisher.hub.names import RepositoryId
from publisher.hub.owner import Owner
from publisher.hub.storage import HubStorage
from publisher.jobs.waiting import LONGEST_PAUSE, SHORTEST_PAUSE, pause
from publisher.store.models import Job, Variant
from publisher.store.states import JobState
from tests.jobs import rows
from tests.worker.jobs.publishing import KEY, Publishing
from worker.jobs.target import publish_target
from worker.stages.rights import check_rights

COMPUTED = {"prune", "quantize", "package"}


def stages(jobs: Publishing, job_id: str) -> set[str]:
    """Those that were finished or reused."""
    told = [event.data for event in rows.read_events(jobs.database, job_id) if event.kind == "stage"]
    return {data["stage"] for data in told if data["state"] != "started"}


def longer_ago(jobs: Publishing, job_id: str, seconds: float) -> None:
    with jobs.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(waiting_since=Job.waiting_since - seconds))


def fresh(jobs: Publishing) -> str:
    """A job none of whose stages but fetch is there already."""
    job_id = jobs.add_job()
    with jobs.database.write() as session:
        variant = session.get_one(Variant, session.get_one(Job, job_id).variant_id)
        variant.recipe = {**variant.recipe, "seed": jobs.number}
    return job_id


@pytest.mark.parametrize(("status", "asked"), [(429, "3600"), (503, None), (408, None), (500, None)])
def test_hub_that_is_away_costs_no_try(jobs: Publishing, status: int, asked: str | None) -> None:
    job_id = jobs.add_job()
    for _ in range(jobs.settings.max_attempts + 1):
        jobs.middle.answers["/api/models"] = (status, {"retry-after": asked} if asked else {})
        job = jobs.run(job_id)
        assert (job.state, job.attempt, job.failure) == (JobState.QUEUED, 0, None)
        assert job.waiting is not None
        assert job.waiting["kind"] == "hub"
        assert str(status) in job.waiting["message"]
        expected = float(asked) if asked else SHORTEST_PAUSE
        assert job.claimable_at - time.time() == pytest.approx(expected, abs=30)
    jobs.middle.reset()
    jobs.run(job_id)
    assert jobs.agreed(job_id) is JobState.SUCCEEDED
    assert rows.load(jobs.database, job_id).attempt == 1


def test_looks_become_rarer() -> None:
    waited, pauses = 0.0, []
    for _ in range(8):
        pauses.append(pause(waited))
        waited += pauses[-1]
    assert pauses == [10, 10, 20, 40, 80, 160, 300, 300]
    assert (SHORTEST_PAUSE, LONGEST_PAUSE) == (10, 300)


def test_patience_ends_and_says_how_long_it_was(jobs: Publishing) -> None:
    job_id = jobs.add_job()
    jobs.middle.answers["/api/models"] = (503, {})
    jobs.run(job_id)
    longer_ago(jobs, job_id, jobs.settings.hub_patience_seconds - 60)
    assert jobs.run(job_id).state is JobState.QUEUED
    longer_ago(jobs, job_id, 120)
    job = jobs.run(job_id)
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert job.failure["blame"] == "infrastructure"
    assert "503" in job.failure["message"]
    assert "waited for 6 h" in job.failure["message"]


def test_job_that_waits_is_cancelled_at_once(jobs: Publishing) -> None:
    job_id = jobs.add_job()
    jobs.middle.answers["/api/models"] = (503, {})
    jobs.run(job_id)
    jobs.cancel(job_id)
    jobs.middle.reset()
    assert jobs.agreed(job_id) is JobState.CANCELLED


def test_worker_with_another_secret_is_named_before_anything_is_computed(jobs: Publishing) -> None:
    job_id = fresh(jobs)
    other = jobs.settings.model_copy(update={"secret": SecretStr("another secret of 32 bytes or so")})
    job = jobs.run(job_id, other)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert job.waiting is not None
    assert job.waiting["kind"] == "credential"
    assert "PUBLISHER_SECRET" in job.waiting["way_out"]
    assert "HUB_TOKEN" not in job.waiting["way_out"]
    assert not stages(jobs, job_id) & COMPUTED
    longer_ago(jobs, job_id, jobs.settings.hub_patience_seconds + 1)
    assert jobs.run(job_id, other).state is JobState.FAILED


def test_job_that_computed_everything_waits_for_its_credential_without_end(jobs: Publishing) -> None:
    job_id = jobs.add_job()
    jobs.middle.answers["/preupload/"] = (403, {})  # a right that was withdrawn meanwhile
    jobs.run(job_id)
    jobs.middle.reset()
    other = jobs.settings.model_copy(update={"secret": SecretStr("another secret of 32 bytes or so")})
    for _ in range(jobs.settings.max_attempts + 1):
        job = jobs.run(job_id, other)
        assert stages(jobs, job_id) >= COMPUTED
        assert job.state is JobState.QUEUED
        assert job.waiting is not None
        assert (job.waiting["kind"], job.waiting["stage"]) == ("credential", "publish")
        longer_ago(jobs, job_id, 30 * 24 * 3600)
    jobs.run(job_id)
    assert jobs.agreed(job_id) is JobState.SUCCEEDED


def test_missing_token_of_another_hub_names_the_setting(jobs: Publishing) -> None:
    job_id = fresh(jobs)
    elsewhere = jobs.settings.model_copy(update={"hub_endpoint": jobs.settings.resolved_hub_endpoint})
    job = jobs.run(job_id, elsewhere)
    assert job.waiting is not None
    assert job.waiting["kind"] == "credential"
    assert "PUBLISHER_HUB_TOKEN" in job.waiting["way_out"]
    wrong = elsewhere.model_copy(update={"hub_token": SecretStr("hf_wrong")})
    job = jobs.run(job_id, wrong)
    assert job.waiting is not None
    assert "hf_wrong" not in str(job.waiting)
    assert "PUBLISHER_HUB_TOKEN" in job.waiting["way_out"]
    assert not stages(jobs, job_id) & COMPUTED


@pytest.mark.parametrize("exists", [True, False])
def test_namespace_of_somebody_else_is_the_request_s_fault_before_anything_is_computed(
    jobs: Publishing, exists: bool
) -> None:
    job_id = fresh(jobs)
    namespace = f"rival-{exists}"
    with jobs.database.write() as session:
        session.get_one(Variant, session.get_one(Job, job_id).variant_id).publish_repo_id = f"{namespace}/small"
    storage, rival = HubStorage(jobs.settings.hub_dir), Owner("rival", "rival")
    for name in ("first", "small") if exists else ("first",):
        storage.create_repository(RepositoryId(namespace, name), rival, private=False)
    job = jobs.run(job_id)
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert job.failure["blame"] == "request"
    assert f"{namespace}/small" in job.failure["message"]
    assert not stages(jobs, job_id) & COMPUTED


def test_public_repository_for_a_private_checkpoint_is_named_before_anything_is_computed(jobs: Publishing) -> None:
    job_id = fresh(jobs)
    with jobs.database.write() as session:
        session.get_one(Variant, session.get_one(Job, job_id).variant_id).publish_private = True
    jobs.hub.create_repo(jobs.repo_id(job_id))
    job = jobs.run(job_id)
    assert job.failure is not None
    assert "is public" in job.failure["message"]
    assert not stages(jobs, job_id) & COMPUTED


def test_rights_are_asked_for_without_leaving_anything_at_the_hub(jobs: Publishing) -> None:
    job_id = jobs.add_job()
    lease = rows.claim(jobs.database, job_id)
    with jobs.database.read() as session:
        target = publish_target(session, session.get_one(Job, job_id).variant, jobs.settings, lease)
    check_rights(target)
    assert not jobs.hub.repo_exists(jobs.repo_id(job_id))


def test_other_hub_is_asked_whose_token_it_is(jobs: Publishing) -> None:
    """Where there is no repository yet, what the Hub says of the token's owner counts."""
    elsewhere = {"hub_endpoint": jobs.settings.resolved_hub_endpoint, "hub_token": SecretStr(KEY)}
    job_id = fresh(jobs)
    with jobs.database.write() as session:
        session.get_one(Variant, session.get_one(Job, job_id).variant_id).publish_repo_id = "someone-else/small"
    job = jobs.run(job_id, jobs.settings.model_copy(update=elsewhere))
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert (job.failure["blame"], "its token writes to org" in job.failure["message"]) == ("request", True)


def test_download_of_the_base_model_goes_on_where_the_hub_went_away(jobs: Publishing) -> None:
    job_id = jobs.add_job(base_model_id=jobs.add_base_from_hub())
    hub = {"base_model_endpoint": jobs.settings.resolved_hub_endpoint, "base_model_token": SecretStr(KEY)}
    settings = jobs.settings.model_copy(update=hub)
    jobs.middle.after["HEAD "] = lambda: jobs.middle.answers.update({"/model.safetensors": (503, {})})
    job = jobs.run(job_id, settings)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert job.waiting is not None
    assert (job.waiting["kind"], job.waiting["stage"]) == ("hub", "fetch")
    jobs.middle.reset()
    assert jobs.run(job_id, settings).state is JobState.SUCCEEDED
    asked = jobs.middle.seen
    first = next(number for number, request in enumerate(asked) if request.startswith("HEAD "))
    got = [request.rpartition("/")[2] for request in asked[first:] if request.startswith("GET /hub/org/base/")]
    assert got == ["model.safetensors", "tokenizer.json", "tokenizer_config.json"]


_WITHOUT_TORCH = """
import sys
from worker.jobs import child
child.main()
assert "torch" not in sys.modules, "torch was loaded to ask a Hub"
"""


@pytest.mark.parametrize("status", [503, 401])
def test_looking_again_for_a_hub_or_a_credential_loads_no_torch(
    jobs: Publishing, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    for name in ("data_dir", "broker_url", "public_url", "worker_device"):
        monkeypatch.setenv(f"PUBLISHER_{name.upper()}", str(getattr(jobs.settings, name)))
    job_id = jobs.add_job()
    jobs.middle.answers["/api/"] = (status, {})
    assert jobs.run(job_id).state is JobState.QUEUED
    rows.let_pass(jobs.database, job_id, 3600)
    lease = rows.claim(jobs.database, job_id)
    command = [sys.executable, "-c", _WITHOUT_TORCH, job_id, str(lease.token), str(os.getpid())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    job = rows.load(jobs.database, job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert job.waiting is not None
    assert job.waiting["kind"] == ("hub" if status == 503 else "credential")


def test_right_that_is_gone_after_a_wait_does_not_lose_what_was_computed(jobs: Publishing) -> None:
    job_id = jobs.add_job()
    jobs.middle.answers["/preupload/"] = (403, {})
    assert jobs.run(job_id).state is JobState.QUEUED
    jobs.middle.answers["/auth-check"] = (403, {})
    assert jobs.run(job_id).state is JobState.QUEUED
    jobs.middle.reset()
    jobs.run(job_id)
    assert jobs.agreed(job_id) is JobState.SUCCEEDED
