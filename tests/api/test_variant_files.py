"""Files of a published variant, from the embedded Hub and from one elsewhere."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi

from publisher.hub.storage import HubStorage
from publisher.jobs import transitions
from publisher.jobs.transitions import PublishedFile
from tests.api.conftest import Body, RunningApi, Tenant, created, refused
from tests.hub.test_damage import flip
from tests.jobs.rows import claim

CONTENT = bytes(range(256)) * 40


def publish(api: RunningApi, job_id: str, publication: Body) -> None:
    """What a worker does at the end."""
    lease = claim(api.database, job_id)
    files = [PublishedFile("weights/a b.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())]
    with api.database.write() as session:
        transitions.succeed(session, lease, publication, {"format_version": 1}, files)


@pytest.fixture
def variant(api: RunningApi, tenant: Tenant, client: httpx.Client, variant_body: Body) -> Body:
    """Published to the embedded Hub."""
    variant = created(client.post("/v1/variants", json=variant_body))
    hub = HfApi(endpoint=f"{api.url}/hub", token=tenant.key)
    repo = hub.create_repo(variant_body["publish"]["repo_id"], private=True).repo_id
    commit = hub.upload_file(repo_id=repo, path_or_fileobj=CONTENT, path_in_repo="weights/a b.bin").oid
    url = f"{api.url}/hub/{repo}"
    publication: dict[str, Any] = {"endpoint": f"{api.url}/hub", "repo_id": repo, "commit": commit, "url": url}
    publish(api, variant["job"]["id"], publication)
    return variant


def test_files_are_listed_with_size_and_digest(client: httpx.Client, variant: Body) -> None:
    items = client.get(f"/v1/variants/{variant['id']}/files").json()["items"]
    assert items == [{"path": "weights/a b.bin", "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}]


def test_a_file_is_read_whole_or_by_range(client: httpx.Client, variant: Body) -> None:
    path = f"/v1/variants/{variant['id']}/files/weights/a%20b.bin"
    assert client.get(path).content == CONTENT
    part = client.get(path, headers={"Range": "bytes=100-299"})
    assert part.status_code == 206
    assert part.content == CONTENT[100:300]
    assert part.headers["content-range"] == f"bytes 100-299/{len(CONTENT)}"
    assert client.head(path).headers["content-length"] == str(len(CONTENT))


def test_a_range_past_the_end_is_not_satisfiable(client: httpx.Client, variant: Body) -> None:
    path = f"/v1/variants/{variant['id']}/files/weights/a%20b.bin"
    assert client.get(path, headers={"Range": "bytes=99999999-"}).status_code == 416


def test_a_damaged_file_is_an_infrastructure_problem_and_shows_in_the_metrics(
    api: RunningApi, client: httpx.Client, variant: Body
) -> None:
    storage = HubStorage(api.settings.hub_dir)
    flip(storage.blobs.path(hashlib.sha256(CONTENT).hexdigest()))
    problem = client.get(f"/v1/variants/{variant['id']}/files/weights/a%20b.bin")
    assert problem.status_code == 503
    assert problem.headers["content-type"] == "application/problem+json"
    assert "'weights/a b.bin'" in problem.json()["detail"]
    assert "\npublisher_hub_damaged_files 1.0" in httpx.get(f"{api.url}/metrics").text
    storage.blobs.put(CONTENT)
    assert "\npublisher_hub_damaged_files 0.0" in httpx.get(f"{api.url}/metrics").text
    assert client.get(f"/v1/variants/{variant['id']}/files/weights/a%20b.bin").content == CONTENT


@pytest.mark.parametrize("path", ["none.bin", "../../secret", "weights"])
def test_a_file_that_was_not_published_is_not_found(client: httpx.Client, variant: Body, path: str) -> None:
    refused(client.get(f"/v1/variants/{variant['id']}/files/{path.replace('../', '%2e%2e%2f')}"), 404)


def test_before_publication_there_are_no_files(client: httpx.Client, variant_body: Body) -> None:
    variant = created(client.post("/v1/variants", json=variant_body))
    assert client.get(f"/v1/variants/{variant['id']}/files").json() == {"items": []}
    assert "not published yet" in refused(client.get(f"/v1/variants/{variant['id']}/files/config.json"), 404)


def test_somebody_elses_files_are_not_found(stranger: httpx.Client, variant: Body) -> None:
    refused(stranger.get(f"/v1/variants/{variant['id']}/files/weights/a%20b.bin"), 404)


def test_a_file_on_another_hub_is_redirected_to(api: RunningApi, client: httpx.Client, variant_body: Body) -> None:
    variant = created(client.post("/v1/variants", json=variant_body))
    elsewhere = {
        "endpoint": "https://hub.example",
        "repo_id": "org/x",
        "commit": "c" * 40,
        "url": "https://hub.example/org/x",
    }
    publish(api, variant["job"]["id"], elsewhere)
    answer = client.get(f"/v1/variants/{variant['id']}/files/weights/a%20b.bin")
    assert answer.status_code == 307
    assert answer.headers["location"] == f"https://hub.example/org/x/resolve/{'c' * 40}/weights/a%20b.bin"
