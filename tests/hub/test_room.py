"""Bytes stored: refused before they are sent where that can be known, never more than allowed, and free again when they
are gone; on both databases."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from publisher.hub.changes import AddFile, Change
from publisher.hub.commits import CommittedFile
from publisher.hub.names import RepositoryId
from publisher.hub.owner import Owner
from publisher.hub.room import StorageQuotaExceeded, TenantsRoom
from publisher.hub.router import create_hub
from publisher.hub.storage import HubStorage
from publisher.hub.uploads import OWN_CLIENT
from publisher.jobs.suspension import resume_tenant
from publisher.store import keys, quotas, tenants
from publisher.store.database import Database
from publisher.store.models import Tenant
from publisher.store.quotas import STORED_BYTES
from publisher.store.stored_objects import bytes_of, stored_bytes
from tests.hub.conftest import SECRET
from tests.servers import serve


@dataclass(frozen=True)
class Lab:
    """A tenant with room for 1,000 bytes, and its repository `lab/model`."""

    database: Database
    storage: HubStorage
    owner: Owner

    @property
    def used(self) -> int:
        with self.database.read() as session:
            return stored_bytes(session, self.owner.tenant)

    def commit(self, *contents: bytes, repository: str = "lab/model") -> None:
        files = [AddFile(f"{number}.txt", self.stored(content)) for number, content in enumerate(contents)]
        self.storage.open_repository(repository).commit(Change("main", "files", "", "lab", tuple(files)))

    def stored(self, content: bytes) -> CommittedFile:
        return CommittedFile.regular(content, self.storage.blobs.put(content))


@pytest.fixture
def lab(database: Database, tmp_path: Path) -> Lab:
    with database.write() as session:
        tenant = keys.add_tenant(session, "lab")
        quotas.set_limit(session, tenant, STORED_BYTES, 1000)
        owner = Owner(tenant.id, "lab")
    storage = HubStorage(tmp_path / "hub", room=TenantsRoom(database))
    storage.create_repository(RepositoryId("lab", "model"), owner, private=False)
    return Lab(database, storage, owner)


def test_what_does_not_fit_is_not_committed(lab: Lab) -> None:
    lab.commit(b"a" * 600)
    head = lab.storage.open_repository("lab/model").commit_id("main")
    with pytest.raises(StorageQuotaExceeded, match="500 bytes more do not fit: 600 of 1,000 are stored"):
        lab.commit(b"a" * 600, b"b" * 500)
    assert lab.storage.open_repository("lab/model").commit_id("main") == head
    assert lab.used == 600
    lab.commit(b"a" * 600, b"b" * 400)
    assert lab.used == 1000


def test_a_content_counts_once_and_what_is_full_may_still_name_it(lab: Lab) -> None:
    lab.commit(b"a" * 1000)
    lab.storage.create_repository(RepositoryId("lab", "other"), lab.owner, private=False)
    lab.commit(b"a" * 1000, repository="lab/other")
    assert lab.used == 1000
    lab.storage.delete_repository(RepositoryId("lab", "other"))
    assert lab.used == 1000
    lab.storage.delete_repository(RepositoryId("lab", "model"))
    assert lab.used == 0


def test_uploads_at_once_do_not_overshoot(lab: Lab) -> None:
    repository = lab.storage.open_repository("lab/model")

    def take(number: int) -> bool:
        try:
            repository.take_room({f"{number:064x}": 300})
        except StorageQuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 3
    assert lab.used == 900


def test_what_is_on_disk_is_counted_anew(lab: Lab) -> None:
    """As after an upgrade, or where a process was killed between the disk and the database."""
    lab.commit(b"a" * 100, b"b" * 200)
    lab.storage.room.forget("lab/model")
    assert lab.used == 0
    lab.storage.settle_room()
    assert lab.used == 300
    lab.storage.settle_room()
    assert lab.used == 300


@pytest.fixture
def hub(lab: Lab) -> Iterator[str]:
    app = FastAPI(max_body_size=1_000_000)
    app.mount("/hub", create_hub(lab.storage, authenticate={"token": lab.owner}.get, secret=SECRET))
    with serve(app) as port:
        yield f"http://127.0.0.1:{port}/hub"


def test_a_client_is_refused_before_it_sends_anything(lab: Lab, hub: str, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(secrets.token_bytes(2000))
    api = HfApi(endpoint=hub, token="token", library_name=OWN_CLIENT)
    with pytest.raises((HfHubHTTPError, ValueError, RuntimeError), match=r"507|do not fit"):
        api.upload_file(path_or_fileobj=weights, path_in_repo="model.safetensors", repo_id="lab/model")
    assert lab.used == 0
    assert list(lab.storage.blobs.folder.glob("*/*")) == []
    weights.write_bytes(secrets.token_bytes(900))
    api.upload_file(path_or_fileobj=weights, path_in_repo="model.safetensors", repo_id="lab/model")
    assert lab.used == 900


def batch(hub: str, content: bytes) -> httpx.Response:
    oid = hashlib.sha256(content).hexdigest()
    return httpx.post(
        f"{hub}/lab/model.git/info/lfs/objects/batch",
        json={"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": len(content)}]},
        headers={"Authorization": "Bearer token"},
    )


def test_an_upload_that_breaks_off_gives_its_room_back(lab: Lab, hub: str) -> None:
    content = secrets.token_bytes(800)
    link = batch(hub, content).json()["objects"][0]["actions"]["upload"]["href"]
    assert httpx.put(link, content=bytes(800)).status_code == 400  # other bytes
    assert lab.used == 0
    assert httpx.put(link, content=content).status_code == 200
    assert lab.used == 800
    refused = batch(hub, secrets.token_bytes(300))
    assert refused.status_code == 507
    assert "stored_bytes" in refused.json()["error"]
    with lab.database.write() as session:
        quotas.set_limit(session, session.get_one(Tenant, lab.owner.tenant), STORED_BYTES, None)
    assert batch(hub, secrets.token_bytes(300)).status_code == 200


def test_a_link_is_worth_nothing_while_its_tenant_is_suspended(lab: Lab, hub: str) -> None:
    content = secrets.token_bytes(800)
    link = batch(hub, content).json()["objects"][0]["actions"]["upload"]["href"]
    with lab.database.write() as session:
        tenants.suspend(session, session.get_one(Tenant, lab.owner.tenant))
    refused = httpx.put(link, content=content)
    assert refused.status_code == 403
    assert "suspended" in refused.json()["error"]
    assert lab.used == 0
    with lab.database.write() as session:
        resume_tenant(session, session.get_one(Tenant, lab.owner.tenant))
    assert httpx.put(link, content=content).status_code == 200


def test_bytes_are_told_of_each_repository(lab: Lab) -> None:
    lab.storage.create_repository(RepositoryId("lab", "other"), lab.owner, private=True)
    lab.commit(b"a" * 300, b"b" * 50)
    lab.commit(b"a" * 300, repository="lab/other")
    with lab.database.read() as session:
        told = bytes_of(session, lab.owner.tenant, ["lab/model", "lab/other", "lab/none"])
        assert told == {"lab/model": 350, "lab/other": 300}
        assert bytes_of(session, "ten_other", ["lab/model"]) == {}
