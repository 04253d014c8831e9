"""From rows to a build request: only the tenant's own corpora, and the token that fits the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from publisher.base_model.facts import inspect_folder
from publisher.corpus.dataset import HubAccess
from publisher.corpus.facts import count
from publisher.corpus.source import CorpusSource
from publisher.errors import CredentialFault, RequestFault
from publisher.jobs.leases import Lease
from publisher.jobs.tokens import JobToken, read_job_token
from publisher.jobs.transitions import Blame
from publisher.settings import Settings
from publisher.store.database import Database
from publisher.store.models import Corpus, Job, Variant
from tests.dataset_hub import COMMIT
from tests.jobs import rows
from tests.models import tiny_llama
from tests.recipe.history import HISTORY, REMOVED
from tests.worker.stages.building import prose
from worker.jobs.failures import failure_of
from worker.jobs.request import read_request, secrets_of
from worker.models.device import Device
from worker.request import BuildRequest

RECIPE = {"pruning": {"criterion": "random", "ratio": 0.5}, "evaluation": {"corpora": ["prose"]}}


def add_job(database: Database) -> Job:
    job_id = rows.add_job(database)
    job = rows.load(database, job_id)
    with database.write() as session:
        session.get_one(Variant, job.variant_id).recipe = RECIPE
    return job


def add_corpus(database: Database, tenant_id: str, path: str) -> None:
    with database.write() as session:
        session.add(Corpus(tenant_id=tenant_id, name="prose", source={"name": "prose", "path": path}, facts={}))


def read(database: Database, settings: Settings, job: Job) -> BuildRequest:
    with database.read() as session:
        return read_request(session, settings, Lease(job.id, 1), "cpu")


def test_recipe_of_an_older_version_is_built_as_it_was_meant(database: Database, settings: Settings) -> None:
    job = add_job(database)
    oldest = HISTORY[0].recipe | {"evaluation": None, "alignment": None}
    pruning = {"criterion": "magnitude", "calibration": None}
    with database.write() as session:
        row = session.get_one(Variant, job.variant_id)
        row.recipe, row.recipe_version = oldest | {"pruning": oldest["pruning"] | pruning}, 1
    assert read(database, settings, job).recipe.pruning.scope == "uniform"


def test_recipe_of_another_version_that_cannot_be_read_is_the_request_s_fault(
    database: Database, settings: Settings
) -> None:
    job = add_job(database)
    with database.write() as session:
        row = session.get_one(Variant, job.variant_id)
        row.recipe, row.recipe_version = REMOVED.recipe, REMOVED.version
    with pytest.raises(RequestFault, match="this recipe was written by another version: ") as fault:
        read(database, settings, job)
    assert failure_of(fault.value, None).blame is Blame.REQUEST


def test_corpora_are_those_of_the_tenant(database: Database, settings: Settings) -> None:
    own, other = add_job(database), add_job(database)
    add_corpus(database, own.tenant_id, "/text/own")
    add_corpus(database, other.tenant_id, "/text/other")
    assert read(database, settings, own).corpora["prose"].path == Path("/text/own")


def test_files_that_changed_since_they_were_registered_are_refused(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    job = add_job(database)
    text = prose(tmp_path / "prose.jsonl")
    facts = count(CorpusSource(name="prose", path=text))
    with database.write() as session:
        source = {"name": "prose", "path": str(text)}
        session.add(Corpus(tenant_id=job.tenant_id, name="prose", source=source, facts=facts.model_dump()))
    corpus = read(database, settings, job).corpora["prose"]
    assert corpus.content_digest() == facts.content_digest
    with text.open("a") as lines:
        lines.write('{"text": "more"}\n')
    with pytest.raises(RequestFault, match=r"corpus prose: prose.jsonl changed .* register it again") as fault:
        read(database, settings, job).corpora["prose"].content_digest()
    assert failure_of(fault.value, "evaluate").blame is Blame.REQUEST


def test_a_dataset_is_read_from_the_hub_of_base_models(database: Database, settings: Settings) -> None:
    job = add_job(database)
    dataset = {"repo_id": "org/lines", "revision": COMMIT}
    with database.write() as session:
        source = CorpusSource.model_validate({"name": "prose", "dataset": dataset}).model_dump(mode="json")
        session.add(Corpus(tenant_id=job.tenant_id, name="prose", source=source, facts={}))
    hub = {"base_model_endpoint": "https://hub.example", "base_model_token": SecretStr("hf_x")}
    request = read(database, settings.model_copy(update=hub), job)
    shelf = request.corpora["prose"].shelf
    assert shelf is not None
    assert shelf.folder.is_relative_to(settings.stages_dir)
    assert shelf.access == HubAccess("https://hub.example", "hf_x")
    assert "hf_x" in secrets_of(request)
    assert "hf_x" not in repr(request) + request.corpora["prose"].model_dump_json()


def test_corpus_that_is_gone_is_the_fault_of_the_request(database: Database, settings: Settings) -> None:
    with pytest.raises(RequestFault, match="corpus prose does not exist any more"):
        read(database, settings, add_job(database))


def test_embedded_hub_gets_a_token_of_the_job_s_lease(database: Database, settings: Settings) -> None:
    job = add_job(database)
    add_corpus(database, job.tenant_id, "/text")
    request = read(database, settings, job)
    assert request.publish is not None
    assert request.publish.endpoint == f"{settings.public_url}/hub"
    assert read_job_token(settings.secret_bytes(), request.publish.token) == JobToken(job.id, 1)
    assert secrets_of(request) == [request.publish.token]


def test_other_hub_gets_the_configured_token(database: Database, settings: Settings) -> None:
    job = add_job(database)
    add_corpus(database, job.tenant_id, "/text")
    elsewhere = {"hub_endpoint": "https://hub.example", "hub_token": SecretStr("hf_x")}
    request = read(database, settings.model_copy(update=elsewhere), job)
    assert request.publish is not None
    assert (request.publish.endpoint, request.publish.token) == ("https://hub.example", "hf_x")


def test_other_hub_without_a_token_names_the_setting(database: Database, settings: Settings) -> None:
    job = add_job(database)
    add_corpus(database, job.tenant_id, "/text")
    with pytest.raises(CredentialFault, match=r"no token for https://hub\.example.*PUBLISHER_HUB_TOKEN"):
        read(database, settings.model_copy(update={"hub_endpoint": "https://hub.example"}), job)


def test_a_job_that_its_worker_cannot_hold_is_refused_before_it_begins(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    job = add_job(database)
    add_corpus(database, job.tenant_id, "/text")
    alignment = {"alignment": {"corpora": [{"name": "prose"}]}}
    facts = inspect_folder(tiny_llama(tmp_path, num_hidden_layers=8)).model_dump(mode="json")
    with database.write() as session:
        variant = session.get_one(Variant, job.variant_id)
        variant.recipe = RECIPE | alignment
        variant.base_model.facts = facts
    small, large = (Device("cpu", "x86", memory) for memory in (2**20, 2**34))
    with database.read() as session:
        with pytest.raises(RequestFault, match=r"aligning needs about .* and cpu has 0\.0 GiB"):
            read_request(session, settings, Lease(job.id, 1), "cpu", [small])
        assert read_request(session, settings, Lease(job.id, 1), "cpu", [large]).recipe.alignment is not None
