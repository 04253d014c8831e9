"""The storage below the protocol: crashes, other processes, garbage."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from publisher.errors import OutOfDisk
from publisher.hub.changes import AddFile, Change, DeleteFile
from publisher.hub.commits import CommittedFile
from publisher.hub.disk import disk_full_is_named
from publisher.hub.faults import EntryMissing, Forbidden, RepositoryMissing, RevisionMissing
from publisher.hub.garbage import collect_garbage
from publisher.hub.names import RepositoryId
from publisher.hub.owner import Owner
from publisher.hub.repositories import Repository
from publisher.hub.storage import HubStorage

MODEL = RepositoryId("lab", "model")
LAB = Owner("tenant", "lab")

COMMITTING_FOREVER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tests.hub.test_storage import add
from publisher.hub.storage import HubStorage
repository = HubStorage(Path(sys.argv[1])).open_repository("lab/model")
for number in range(10**6):
    add(repository, f"{number}.txt", str(number).encode())
    print(number, flush=True)
"""

UPLOADING_FOREVER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from publisher.hub.storage import HubStorage
with HubStorage(Path(sys.argv[1])).blobs.receive("0" * 64, 10**9) as incoming:
    incoming.write(bytes(10**6))
    print("half way", flush=True)
    sys.stdin.read()
"""


def add(repository: Repository, path: str, content: bytes) -> str:
    file = CommittedFile.regular(content, repository.blobs.put(content))
    return repository.commit(_change(AddFile(path, file))).id


def _change(*operations: AddFile | DeleteFile) -> Change:
    return Change(branch="main", title="t", message="", author="lab", operations=operations)


@pytest.fixture
def storage(tmp_path: Path) -> HubStorage:
    storage = HubStorage(tmp_path / "hub")
    storage.create_repository(MODEL, LAB, private=False)
    return storage


def start(script: str, storage: HubStorage) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(storage.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def kill_after_lines(process: subprocess.Popen[str], lines: int) -> None:
    assert process.stdout is not None
    for _ in range(lines):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("commits", [1, 7, 20])
def test_a_writer_that_is_killed_leaves_whole_commits(storage: HubStorage, commits: int) -> None:
    kill_after_lines(start(COMMITTING_FOREVER, storage), commits)
    repository = storage.open_repository("lab/model")
    history = list(repository.history("main"))
    done = len(history) - 1
    assert done >= commits
    for number in range(done):
        file = repository.resolve("main", f"{number}.txt")
        assert hashlib.sha256(file.path.read_bytes()).hexdigest() == file.sha256
    # The lock died with its holder.
    add(repository, "after.txt", b"after")
    assert len(repository.commit_at("main").files) == done + 1


def test_two_processes_lose_no_commit(storage: HubStorage) -> None:
    other = start(COMMITTING_FOREVER, storage)
    repository = storage.open_repository("lab/model")
    for number in range(20):
        add(repository, f"mine {number}", b"x")
    kill_after_lines(other, 20)
    files = repository.commit_at("main").files
    assert {f"mine {number}" for number in range(20)} | {f"{number}.txt" for number in range(20)} <= set(files)
    assert len(list(repository.history("main"))) == len(files) + 1


def test_a_killed_upload_leaves_no_blob_and_its_rest_is_garbage(storage: HubStorage) -> None:
    kill_after_lines(start(UPLOADING_FOREVER, storage), 1)
    assert storage.blobs.size("0" * 64) is None
    assert len(list(storage.blobs.incoming.iterdir())) == 1
    assert collect_garbage(storage).files == 0  # it might still be going on
    removed = collect_garbage(storage, grace_seconds=-1, upload_grace_seconds=-1)
    assert removed.files == 1
    assert list(storage.blobs.incoming.iterdir()) == []


def test_garbage_is_only_what_no_commit_has(storage: HubStorage) -> None:
    repository = storage.open_repository(MODEL)
    first = add(repository, "a.txt", b"first")
    repository.commit(_change(DeleteFile("a.txt")))
    other = storage.create_repository(RepositoryId("lab", "other"), LAB, private=False)
    add(other, "shared.txt", b"first")
    add(other, "own.txt", b"second, of eighteen")
    storage.delete_repository(other.id)
    assert collect_garbage(storage).files == 0
    removed = collect_garbage(storage, grace_seconds=-1, upload_grace_seconds=-1)
    assert (removed.files, removed.bytes) == (1, len(b"second, of eighteen"))
    assert repository.resolve(first, "a.txt").path.read_bytes() == b"first"


def test_a_large_file_that_was_collected_must_be_uploaded_again(storage: HubStorage) -> None:
    repository = storage.open_repository(MODEL)
    digest = storage.blobs.put(b"large")
    repository.add_large_object(digest, 5)
    assert repository.large_file(digest) == CommittedFile.large(digest, 5)
    collect_garbage(storage, grace_seconds=-1, upload_grace_seconds=-1)
    assert repository.large_file(digest) is None


def test_what_is_missing_is_named(storage: HubStorage) -> None:
    with pytest.raises(RepositoryMissing, match="no repository 'lab/nothing'"):
        storage.open_repository("lab/nothing")
    repository = storage.open_repository("lab/model")
    with pytest.raises(RevisionMissing, match="has no revision 'v9'"):
        repository.resolve("v9", "a.txt")
    with pytest.raises(EntryMissing, match=r"has no file 'a\.txt' at 'main'"):
        repository.resolve("main", "a.txt")
    storage.delete_repository(MODEL)
    with pytest.raises(RepositoryMissing):
        repository.commit(_change())


def test_another_process_sees_what_is_on_disk(storage: HubStorage) -> None:
    oid = add(storage.open_repository(MODEL), "a.txt", b"content")
    again = HubStorage(storage.root)
    assert [str(repository.id) for repository in again.repositories()] == ["lab/model"]
    assert again.open_repository("lab/model").resolve("main", "a.txt").commit == oid
    assert again.namespace_tenant("lab") == "tenant"


def test_a_namespace_that_two_tenants_want_goes_to_one(storage: HubStorage) -> None:
    def claim(number: int) -> bool:
        try:
            storage.create_repository(RepositoryId("new", f"m{number}"), Owner(f"t{number}", "x"), private=False)
        except Forbidden:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(8))) == 1


def test_a_full_disk_is_named() -> None:
    with pytest.raises(OutOfDisk, match="Free space, then try again"), disk_full_is_named(Path("/dev")):
        Path("/dev/full").write_bytes(b"x")


def test_a_repository_whose_creation_was_cut_short_can_be_created(storage: HubStorage) -> None:
    other = storage.create_repository(RepositoryId("lab", "half"), LAB, private=False)
    (storage.root / "repos/lab/half/repo.json").unlink()  # written last
    with pytest.raises(RepositoryMissing):
        storage.open_repository(other.id)
    storage.create_repository(other.id, LAB, private=True)
    assert storage.open_repository(other.id).settings.private
