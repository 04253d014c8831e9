"""`publisher hub`: an operator's view of the embedded Hub's folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from publisher.hub.changes import AddFile, Change
from publisher.hub.commits import CommittedFile
from publisher.hub.names import RepositoryId
from publisher.hub.owner import Owner
from publisher.hub.storage import HubStorage
from tests.client.test_commands import publisher

LAB = Owner("tenant", "lab")
CONTENTS = {"a.txt": b"small", "w.bin": os.urandom(3 * 1024**2)}


@pytest.fixture
def storage(tmp_path: Path) -> HubStorage:
    storage = HubStorage(tmp_path / "data" / "hub")
    repository = storage.create_repository(RepositoryId("lab", "model"), LAB, private=False)
    for name, content in CONTENTS.items():
        file = CommittedFile.regular(content, storage.blobs.put(content))
        repository.commit(Change("main", name, "", "lab", (AddFile(name, file),)))
    return storage


def blob_of(storage: HubStorage, name: str) -> Path:
    return storage.open_repository("lab/model").resolve("main", name).path


def test_a_check_names_everything_that_is_damaged_and_exits_1(storage: HubStorage) -> None:
    data = str(storage.root.parent)
    whole = publisher("hub", "check", "--data", data)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.startswith("All 2 files of 3.1 MB are as they were stored")

    weights, branch = blob_of(storage, "w.bin"), storage.root / "repos/lab/model/refs/heads/main"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0"[:1])
    blob_of(storage, "a.txt").unlink()
    head = branch.read_text()
    branch.write_text("")
    damaged = publisher("hub", "check", "--data", data)
    assert damaged.returncode == 1
    lines = damaged.stdout.splitlines()
    assert len(lines) == 3
    assert "'main'" in lines[0]
    assert any("'w.bin' of 'lab/model'" in line and "sha256" in line for line in lines)
    assert any("'a.txt' of 'lab/model'" in line and "missing" in line for line in lines)

    branch.write_text(head)
    weights.write_bytes(CONTENTS["w.bin"])
    storage.blobs.put(CONTENTS["a.txt"])
    assert publisher("hub", "check", "--data", data).returncode == 0
    assert storage.blobs.damage.all() == []


def test_collecting_says_what_it_freed_and_a_dry_run_frees_nothing(storage: HubStorage) -> None:
    data, weights = str(storage.root.parent), blob_of(storage, "w.bin")
    storage.delete_repository(RepositoryId("lab", "model"))
    assert "Freed 0 bytes in 0 files" in publisher("hub", "collect", "--data", data).stdout
    for path in storage.root.glob("blobs/*/*"):
        os.utime(path, (time.time() - 3700,) * 2)
    assert "Would free 3.1 MB in 2 files" in publisher("hub", "collect", "--dry-run", "--data", data).stdout
    assert weights.exists()
    assert "Freed 3.1 MB in 2 files" in publisher("hub", "collect", "--data", data).stdout
    assert not weights.exists()


def test_a_folder_without_a_hub_is_refused(tmp_path: Path) -> None:
    done = publisher("hub", "check", "--data", str(tmp_path / "dta"))
    assert done.returncode == 4
    assert "--data" in done.stderr
    assert not (tmp_path / "dta").exists()
