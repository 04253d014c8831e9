"""Two API machines over one PostgreSQL and Redis: what one takes the other has; without what they share none starts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from huggingface_hub import HfApi, hf_hub_download

from tests import servers
from tests.dashboard.conftest import sign_in
from tests.faults.installation import KEY, Installation

SHARED = {"SECRET": "the same everywhere"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, postgresql_server: str) -> Iterator[tuple[Path, str, str]]:
    """A folder, a database and a broker."""
    folder = tmp_path_factory.mktemp("machines")
    with psycopg.connect(postgresql_server, autocommit=True) as connection, servers.redis_server(folder) as broker:
        connection.execute("CREATE DATABASE machines")
        yield folder, postgresql_server.replace("/postgres", "/machines"), broker
        connection.execute("DROP DATABASE machines WITH (FORCE)")


@pytest.fixture
def first(place: tuple[Path, str, str]) -> Iterator[Installation]:
    yield from machine(place, "first", SHARED | {"LOCAL_ROOTS": f'["{place[0]}"]'})


@pytest.fixture
def second(place: tuple[Path, str, str]) -> Iterator[Installation]:
    yield from machine(place, "second", SHARED | {"LOCAL_ROOTS": f'["{place[0]}"]'})


def machine(place: tuple[Path, str, str], name: str, changes: dict[str, str]) -> Iterator[Installation]:
    folder, url, broker = place
    (folder / name).mkdir(exist_ok=True)
    installation = Installation.create(folder / name, url, broker, changes)
    yield installation
    installation.stop()


def test_machines_with_one_hub_folder_and_one_secret_are_one_service(
    first: Installation, second: Installation, place: tuple[Path, str, str]
) -> None:
    first.start_api()
    own_folder = second.spawn_api()
    assert own_folder.wait(60) != 0
    assert f"The Hub lies in {second.settings.hub_dir}" in second.log("api")
    shutil.rmtree(second.settings.hub_dir)
    second.settings.hub_dir.symlink_to(first.settings.hub_dir)
    second.start_api()
    # uploaded to the one, read from the other
    hub = HfApi(endpoint=f"{first.url}/hub", token=KEY)
    hub.create_repo("default/shared")
    content = bytes(range(256)) * 40_000
    hub.upload_file(path_or_fileobj=content, path_in_repo="weights.bin", repo_id="default/shared")
    got = hf_hub_download(
        "default/shared", "weights.bin", endpoint=f"{second.url}/hub", token=KEY, cache_dir=place[0] / "cache"
    )
    assert Path(got).read_bytes() == content
    # a job of the one, followed at the other
    first.register()
    job_id = first.make_variant("default/followed", tokens=64)
    with second.client() as client, first.client() as other:
        other.post(f"/v1/jobs/{job_id}/cancel")
        states = [event.data["state"] for event in client.follow_job(job_id) if event.kind == "state"]
    assert (states[0], states[-1]) == ("queued", "cancelled")  # said again meanwhile: what it waits for
    # a session of the one, used and ended at the other
    with httpx.Client() as browser:
        browser.base_url = httpx.URL(first.url)
        assert sign_in(browser, KEY).status_code == 303
        cookies = dict(browser.cookies)
        assert httpx.get(f"{second.url}/jobs", cookies=cookies).status_code == 200
