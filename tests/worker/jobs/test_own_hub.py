"""A tenant's own Hub takes the place of the service's; what is missing or wrong of it is waited for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from publisher.settings import Settings
from publisher.store import hub_credentials
from publisher.store.models import HubCredential, Job, Variant
from publisher.store.states import JobState
from tests.jobs import rows
from tests.worker.jobs.publishing import KEY, Publishing


@pytest.fixture
def elsewhere(jobs: Publishing) -> Iterator[Settings]:
    """The service itself publishes to a Hub that is away; tenants' Hubs may be on this machine."""
    changes = {
        "hub_endpoint": "http://127.0.0.1:9",
        "hub_token": SecretStr("hf_of-the-service"),
        "allow_private_addresses": True,
    }
    yield jobs.settings.model_copy(update=changes)
    with jobs.database.write() as session:
        hub_credentials.delete(session, jobs.tenant_id)


def give(jobs: Publishing, settings: Settings, token: str = KEY) -> None:
    with jobs.database.write() as session:
        hub_credentials.put(
            session,
            settings.sealing_secrets(),
            jobs.tenant_id,
            jobs.settings.resolved_hub_endpoint,
            write_token=SecretStr(token),
            read_token=None,
            set_by="key_1",
        )


def waits_for_credential(job: Job) -> str:
    assert job.waiting is not None
    assert (job.state, job.attempt, job.waiting["kind"]) == (JobState.QUEUED, 0, "credential")
    return f"{job.waiting['message']} {job.waiting['way_out']}"


def test_job_publishes_to_the_tenants_hub(jobs: Publishing, elsewhere: Settings) -> None:
    give(jobs, elsewhere)
    job_id = jobs.add_job()
    assert jobs.run(job_id, elsewhere).state is JobState.SUCCEEDED
    with jobs.database.read() as session:
        publication = session.get_one(Variant, session.get_one(Job, job_id).variant_id).publication
        assert session.get_one(HubCredential, jobs.tenant_id).used_at is not None
    assert publication is not None
    assert publication["endpoint"] == jobs.settings.resolved_hub_endpoint
    assert jobs.agreed(job_id) is JobState.SUCCEEDED


def test_token_that_the_hub_refuses_is_waited_for_and_named_by_its_route(jobs: Publishing, elsewhere: Settings) -> None:
    give(jobs, elsewhere, "hf_a-wrong-one")
    job_id = jobs.add_job()
    said = waits_for_credential(jobs.run(job_id, elsewhere))
    assert "PUT /v1/hub-credentials" in said
    assert "PUBLISHER_HUB_TOKEN" not in said
    assert "hf_a-wrong-one" not in said
    give(jobs, elsewhere)
    assert jobs.run(job_id, elsewhere).state is JobState.SUCCEEDED


def test_token_that_this_worker_cannot_open_is_waited_for(jobs: Publishing, elsewhere: Settings) -> None:
    give(jobs, elsewhere)
    job_id = jobs.add_job()
    other = elsewhere.model_copy(update={"secret": SecretStr("another secret of 32 bytes or so")})
    assert "cannot be opened here" in waits_for_credential(jobs.run(job_id, other))
    assert jobs.run(job_id, elsewhere).state is JobState.SUCCEEDED


def test_hub_at_a_private_address_is_not_dialled(jobs: Publishing, elsewhere: Settings) -> None:
    give(jobs, elsewhere)
    job_id = jobs.add_job()
    careful = elsewhere.model_copy(update={"allow_private_addresses": False})
    assert "PUBLISHER_ALLOW_PRIVATE_ADDRESSES" in waits_for_credential(jobs.run(job_id, careful))
    assert jobs.middle.seen == []


def test_a_commit_under_way_is_settled_at_the_hub_that_it_was_sent_to(jobs: Publishing, elsewhere: Settings) -> None:
    """Though the tenant took the credential away meanwhile: nobody else's token is shown there."""
    give(jobs, elsewhere)
    job_id = jobs.add_job()
    jobs.middle.lose = "/commit/"
    jobs.run(job_id, elsewhere)
    jobs.middle.reset()
    with jobs.database.write() as session:
        hub_credentials.delete(session, jobs.tenant_id)
    said = waits_for_credential(jobs.run(job_id, elsewhere))
    assert jobs.settings.resolved_hub_endpoint in said
    assert jobs.middle.seen == []
    give(jobs, elsewhere)
    jobs.run(job_id, elsewhere)
    assert jobs.agreed(job_id) is JobState.SUCCEEDED
    assert rows.load(jobs.database, job_id).publishing is None
