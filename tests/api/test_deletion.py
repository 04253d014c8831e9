"""DELETE as seen from outside: what others use stays, and a publication goes whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi

from publisher.api import publications, variants
from publisher.jobs import transitions
from publisher.jobs.transitions import PublishedFile
from publisher.store.keys import add_key, add_tenant
from tests.api.conftest import Body, RunningApi, Tenant, created, recipe, refused, serve_api, write_corpus
from tests.jobs.rows import claim

CONTENT = b"weights"


def publish(api: RunningApi, hub: HfApi, variant: Body) -> str:
    """What a worker does; returns the commit."""
    repo = variant["publish"]["repo_id"]
    hub.create_repo(repo, exist_ok=True)
    commit = str(hub.upload_file(repo_id=repo, path_or_fileobj=CONTENT, path_in_repo="model.safetensors").oid)
    place = {"endpoint": hub.endpoint, "repo_id": repo, "commit": commit, "url": f"{hub.endpoint}/{repo}"}
    files = [PublishedFile("model.safetensors", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())]
    lease = claim(api.database, variant["job"]["id"])
    with api.database.write() as session:
        transitions.succeed(session, lease, place, {"format_version": 1}, files)
    return commit


@pytest.fixture
def hub(api: RunningApi, tenant: Tenant) -> HfApi:
    return HfApi(endpoint=f"{api.url}/hub", token=tenant.key)


@pytest.fixture
def variant(client: httpx.Client, variant_body: Body) -> Body:
    return created(client.post("/v1/variants", json=variant_body))


@pytest.fixture
def published(api: RunningApi, hub: HfApi, variant: Body) -> Body:
    publish(api, hub, variant)
    return variant


def delete(client: httpx.Client, variant: Body, **query: str) -> httpx.Response:
    return client.delete(f"/v1/variants/{variant['id']}", params=query)


def test_what_a_variant_uses_stays_until_it_is_gone(
    client: httpx.Client, variant: Body, base_model: Body, corpus: Body
) -> None:
    for path in (f"/v1/base-models/{base_model['id']}", f"/v1/corpora/{corpus['id']}"):
        assert variant["id"] in refused(client.delete(path), 409)
    assert "cancel first" in refused(delete(client, variant), 409)
    assert "cancel first" in refused(client.delete(f"/v1/jobs/{variant['job']['id']}"), 409)
    client.post(f"/v1/jobs/{variant['job']['id']}/cancel")
    assert delete(client, variant).status_code == 204
    refused(client.get(f"/v1/variants/{variant['id']}"), 404)
    refused(client.get(f"/v1/jobs/{variant['job']['id']}"), 404)
    for path in (f"/v1/base-models/{base_model['id']}", f"/v1/corpora/{corpus['id']}"):
        assert client.delete(path).status_code == 204
        refused(client.get(path), 404)


def test_job_can_go_alone(client: httpx.Client, published: Body) -> None:
    assert client.delete(f"/v1/jobs/{published['job']['id']}").status_code == 204
    assert client.get("/v1/jobs").json()["items"] == []
    assert client.get(f"/v1/variants/{published['id']}").json()["job"] is None
    assert client.get("/v1/variants").json()["items"][0]["publication"] is not None
    assert delete(client, published).status_code == 204


def test_publication_is_kept_unless_asked(client: httpx.Client, hub: HfApi, published: Body) -> None:
    assert delete(client, published).status_code == 204
    assert hub.file_exists(published["publish"]["repo_id"], "model.safetensors")


def test_publication_goes_with_its_repository(client: httpx.Client, hub: HfApi, published: Body) -> None:
    assert delete(client, published, publication="delete").status_code == 204
    assert not hub.repo_exists(published["publish"]["repo_id"])
    refused(client.get(f"/v1/variants/{published['id']}"), 404)


def test_unknown_fates_are_refused(client: httpx.Client, published: Body) -> None:
    refused(delete(client, published, publication="maybe"), 422, "publication")


@pytest.mark.parametrize("what", ["later", "beside", "before", "tag", "branch"])
def test_repository_that_holds_more_is_left_alone(
    api: RunningApi, client: httpx.Client, hub: HfApi, variant: Body, what: str
) -> None:
    repo = variant["publish"]["repo_id"]
    hub.create_repo(repo)
    if what == "beside":
        hub.upload_file(repo_id=repo, path_or_fileobj=b"mine", path_in_repo="notes.txt")
    if what == "before":
        hub.upload_file(repo_id=repo, path_or_fileobj=b"older", path_in_repo="model.safetensors")
    commit = publish(api, hub, variant)
    if what == "later":
        hub.upload_file(repo_id=repo, path_or_fileobj=b"edited", path_in_repo="README.md")
    if what == "tag":
        hub.create_tag(repo, tag="v1")
    if what == "branch":
        hub.create_branch(repo, branch="trial")
    message = refused(delete(client, variant, publication="delete"), 409)
    assert commit in message
    assert "publication=keep" in message
    assert hub.file_exists(repo, "model.safetensors")
    assert client.get(f"/v1/variants/{variant['id']}").json()["publication"]["commit"] == commit
    assert delete(client, variant, publication="keep").status_code == 204


def test_commit_that_another_variant_published_too_is_left_alone(
    api: RunningApi, client: httpx.Client, hub: HfApi, published: Body, variant_body: Body
) -> None:
    twin = created(client.post("/v1/variants", json=variant_body))
    publish(api, hub, twin)  # which commits nothing: it is there already
    assert twin["id"] in refused(delete(client, published, publication="delete"), 409)
    assert delete(client, twin).status_code == 204
    assert delete(client, published, publication="delete").status_code == 204
    assert not hub.repo_exists(published["publish"]["repo_id"])


def test_repository_that_was_made_anew_is_not_the_variants(client: httpx.Client, hub: HfApi, published: Body) -> None:
    repo = published["publish"]["repo_id"]
    hub.delete_repo(repo)
    hub.create_repo(repo)
    hub.upload_file(repo_id=repo, path_or_fileobj=b"other", path_in_repo="model.safetensors")
    assert delete(client, published, publication="delete").status_code == 204
    assert hub.repo_exists(repo)


def test_killed_between_hub_and_database_the_second_request_finishes(
    client: httpx.Client, hub: HfApi, published: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise RuntimeError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(variants, "remove_variant", killed)
        assert delete(client, published, publication="delete").status_code == 500
    assert not hub.repo_exists(published["publish"]["repo_id"])
    assert client.get(f"/v1/variants/{published['id']}").status_code == 200
    assert delete(client, published, publication="delete").status_code == 204


def test_commit_that_comes_while_it_is_deleted_saves_the_repository(
    client: httpx.Client, hub: HfApi, published: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = publications._refuse_built_on

    def and_then(*what: Any) -> None:
        look(*what)
        hub.upload_file(repo_id=published["publish"]["repo_id"], path_or_fileobj=b"x", path_in_repo="late.txt")

    monkeypatch.setattr(publications, "_refuse_built_on", and_then)
    refused(delete(client, published, publication="delete"), 409)
    assert hub.file_exists(published["publish"]["repo_id"], "late.txt")


def test_somebody_elses_things_are_not_deleted(
    client: httpx.Client, stranger: httpx.Client, published: Body, corpus: Body
) -> None:
    for path in ("variants/" + published["id"], "corpora/" + corpus["id"], "jobs/" + published["job"]["id"]):
        refused(stranger.delete(f"/v1/{path}"), 404)
        assert client.get(f"/v1/{path}").status_code == 200


@pytest.fixture(params=["the service's", "the tenant's own"])
def elsewhere(request: pytest.FixtureRequest, api: RunningApi, tenant: Tenant, tmp_path: Path) -> Iterator[RunningApi]:
    """A service that publishes to another one's Hub, with the same tenant's key for both, or leaves that to tenants."""
    own = request.param == "the tenant's own"
    hub = {"allow_private_addresses": True} if own else {"hub_endpoint": f"{api.url}/hub", "hub_token": tenant.key}
    with serve_api(tmp_path, **hub) as running:
        write_corpus(running.roots / "novel.jsonl")
        shutil.copytree(api.roots / "tiny", running.roots / "tiny")
        yield running


@pytest.fixture
def remote(elsewhere: RunningApi, tenant: Tenant, hub: HfApi) -> Iterator[tuple[httpx.Client, Body]]:
    """A client of that service, and a variant that it published."""
    key = "loram_" + "k" * 40
    with elsewhere.database.write() as session:
        add_key(session, add_tenant(session, tenant.name).id, "test", key)
    with httpx.Client(base_url=elsewhere.url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        if elsewhere.settings.hub_token is None:
            own = {"endpoint": hub.endpoint, "write_token": tenant.key}
            client.put("/v1/hub-credentials", json=own).raise_for_status()
        base = created(client.post("/v1/base-models", json={"path": str(elsewhere.roots / "tiny")}))
        created(client.post("/v1/corpora", json={"name": "novel", "path": str(elsewhere.roots / "novel.jsonl")}))
        publication = {"repo_id": f"{tenant.name}/remote"}
        body = {"base_model_id": base["id"], "recipe": recipe(), "publish": publication}
        variant = created(client.post("/v1/variants", json=body))
        hub.create_repo(publication["repo_id"])
        hub.upload_file(repo_id=publication["repo_id"], path_or_fileobj=b"mine", path_in_repo="notes.txt")
        publish(elsewhere, hub, variant)
        yield client, variant


def test_on_another_hub_the_files_go_by_a_commit_and_those_of_others_stay(
    remote: tuple[httpx.Client, Body], hub: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, variant = remote
    repo = variant["publish"]["repo_id"]
    with monkeypatch.context() as patched:
        patched.setattr(variants, "remove_variant", lambda *_: 1 / 0)
        assert delete(client, variant, publication="delete").status_code == 500
    assert set(hub.list_repo_files(repo)) == {"notes.txt"}
    assert delete(client, variant, publication="delete").status_code == 204
    assert len(hub.list_repo_commits(repo)) == 4  # made, notes, published, taken back: once


def test_on_another_hub_what_has_moved_on_stays(remote: tuple[httpx.Client, Body], hub: HfApi) -> None:
    client, variant = remote
    repo = variant["publish"]["repo_id"]
    hub.upload_file(repo_id=repo, path_or_fileobj=b"edited", path_in_repo="notes.txt")
    refused(delete(client, variant, publication="delete"), 409)
    assert "model.safetensors" in hub.list_repo_files(repo)


def test_on_another_hub_a_repository_that_cannot_be_seen_is_not_taken_for_deleted(
    remote: tuple[httpx.Client, Body], hub: HfApi
) -> None:
    client, variant = remote
    hub.delete_repo(variant["publish"]["repo_id"])
    refused(delete(client, variant, publication="delete"), 409)
    assert delete(client, variant).status_code == 204
