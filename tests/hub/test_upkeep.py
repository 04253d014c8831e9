"""What the Hub does on its own: it frees what was deleted, and finds damage before a user does."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from publisher.hub.changes import DeleteFile
from publisher.hub.checking import check_storage
from publisher.hub.faults import Damaged
from publisher.hub.garbage import collect_garbage
from publisher.hub.names import RepositoryId
from publisher.hub.repositories import Repository
from publisher.hub.storage import HubStorage
from publisher.hub.upkeep import Upkeep, scrub
from tests.hub.test_damage import flip, truncate
from tests.hub.test_storage import LAB, MODEL, _change, add
from tests.servers import wait_until

TWO_HOURS = 2 * 3600


@pytest.fixture
def storage(tmp_path: Path) -> HubStorage:
    return HubStorage(tmp_path)


@pytest.fixture
def repository(storage: HubStorage) -> Repository:
    return storage.create_repository(MODEL, LAB, private=False)


@contextmanager
def upkeep(storage: HubStorage) -> Iterator[None]:
    running = Upkeep(storage)
    running.start()
    try:
        yield
    finally:
        running.stop()


def age(storage: HubStorage, seconds: float) -> None:
    for path in storage.root.glob("blobs/*/*"):
        os.utime(path, (time.time() - seconds,) * 2)


def blobs(storage: HubStorage) -> list[Path]:
    return list(storage.root.glob("blobs/*/*"))


def test_what_was_deleted_is_freed_at_the_next_start(storage: HubStorage, repository: Repository) -> None:
    add(repository, "a.txt", b"content")
    storage.delete_repository(MODEL)
    age(storage, TWO_HOURS)
    with upkeep(HubStorage(storage.root)):
        wait_until(lambda: not blobs(storage), "collecting at the start", 10)


def test_a_deletion_frees_without_a_restart(storage: HubStorage, repository: Repository) -> None:
    add(repository, "a.txt", b"content")
    with upkeep(storage):
        age(storage, TWO_HOURS)
        storage.delete_repository(MODEL)
        wait_until(lambda: not blobs(storage), "collecting after the deletion", 10)


def test_a_large_file_waits_a_day_for_its_commit(storage: HubStorage, repository: Repository) -> None:
    repository.add_large_object(storage.blobs.put(b"large"), 5)
    age(storage, TWO_HOURS)
    assert collect_garbage(storage).files == 0
    age(storage, 25 * 3600)
    assert collect_garbage(storage).files == 1


def test_what_is_no_file_is_left_where_it_lies(storage: HubStorage, repository: Repository) -> None:
    storage.blobs.put(b"nobody's")
    stray, loop = storage.root / "blobs" / "ab" / "folder", storage.root / "blobs" / "ab" / "loop"
    stray.mkdir(parents=True)
    loop.symlink_to(loop)
    os.utime(stray, (0, 0))
    for path in blobs(storage):
        if path.is_file():
            os.utime(path, (0, 0))
    assert collect_garbage(storage).files == 1
    assert stray.is_dir()
    assert loop.is_symlink()


def test_nothing_is_collected_while_a_commit_cannot_be_read(storage: HubStorage, repository: Repository) -> None:
    head = add(repository, "a.txt", b"content")
    repository.commit(_change(DeleteFile("a.txt")))
    age(storage, TWO_HOURS)
    truncate(storage.root / "repos/lab/model/commits" / f"{head}.json")
    with pytest.raises(Damaged, match=head):
        collect_garbage(storage)
    assert len(blobs(storage)) == 1


@pytest.mark.parametrize("lost", ["head", "parent"])
def test_nothing_is_collected_while_a_commit_is_missing(storage: HubStorage, repository: Repository, lost: str) -> None:
    parent = add(repository, "a.txt", b"content")
    head = repository.commit(_change(DeleteFile("a.txt"))).id
    age(storage, TWO_HOURS)
    missing = head if lost == "head" else parent
    (storage.root / "repos/lab/model/commits" / f"{missing}.json").unlink()
    with pytest.raises(Damaged, match=missing):
        collect_garbage(storage)
    assert len(blobs(storage)) == 1
    assert any(missing in line for line in check_storage(storage).damage)


@pytest.mark.parametrize("record", ["repos/lab/model/refs/heads/main", "namespaces/lab.json"])
def test_a_lost_record_is_found(storage: HubStorage, repository: Repository, record: str) -> None:
    add(repository, "a.txt", b"content")
    assert check_storage(storage).damage == ()
    (storage.root / record).unlink()
    (found,) = check_storage(storage).damage
    assert "is missing" in found


def test_files_of_a_repository_that_lost_its_settings_are_kept(storage: HubStorage, repository: Repository) -> None:
    add(repository, "a.txt", b"content")
    (storage.root / "repos/lab/model/repo.json").unlink()
    age(storage, TWO_HOURS)
    assert collect_garbage(storage).files == 0


def test_collecting_beside_writers_never_takes_what_they_commit(storage: HubStorage, repository: Repository) -> None:
    """The same contents are deleted with one repository and committed to another, over and over."""
    stop = threading.Event()

    def collect() -> None:
        while not stop.is_set():
            collect_garbage(storage, grace_seconds=0.5, upload_grace_seconds=0.5)

    with ThreadPoolExecutor(1) as pool:
        collector = pool.submit(collect)
        try:
            for number in range(30):
                other = storage.create_repository(RepositoryId("lab", f"other{number}"), LAB, private=False)
                add(other, "a.txt", b"wanted")
                age(storage, 10)
                storage.delete_repository(other.id)
                add(repository, f"{number}.txt", b"wanted")
                assert repository.resolve("main", f"{number}.txt").content.read() == b"wanted"
                repository.commit(_change(DeleteFile(f"{number}.txt")))
        finally:
            stop.set()
        collector.result()


def test_damage_is_found_without_a_reader(
    storage: HubStorage, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    add(repository, "a.txt", b"content")
    file = repository.resolve("main", "a.txt")
    flip(file.path)
    with upkeep(storage):
        wait_until(lambda: storage.blobs.damage.all() == [file.sha256], "a look for damage at the start", 10)
    assert "'a.txt' of 'lab/model'" in caplog.text


def test_a_scrub_goes_on_where_the_last_one_ended(storage: HubStorage, repository: Repository) -> None:
    for number in range(5):
        add(repository, f"{number}.txt", b"x" * 10 + str(number).encode())
    for path in blobs(storage):
        flip(path)
    for found in (1, 2, 3, 4, 5):
        scrub(storage, 11, threading.Event())
        assert len(storage.blobs.damage.all()) == found
