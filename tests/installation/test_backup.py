"""A backup is whole or none, and brings everything back: on the other kind of database, too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from sqlalchemy import inspect

from publisher.errors import InfrastructureFault, PublisherError, RequestFault
from publisher.hub.checking import check_storage
from publisher.hub.names import RepositoryId
from publisher.hub.storage import HubStorage
from publisher.installation.backup import Taken, Taking, forget_old
from publisher.installation.consistency import lacking
from publisher.installation.record import Backup, Record
from publisher.installation.restore import Restoring
from publisher.settings import Settings
from publisher.store import migrate, presence
from publisher.store.database import Database, create_database_engine
from publisher.store.models import ServiceProcess
from publisher.store.private import keep_private
from publisher.store.publications import published_variants
from publisher.store.states import JobState
from tests import servers
from tests.installation.lab import SECRET, WEIGHTS, Lab, admin, all_rows, create_lab, job_of, start_admin


@pytest.fixture
def lab(tmp_path: Path, database_url: str) -> Iterator[Lab]:
    lab = create_lab(tmp_path, database_url)
    yield lab
    lab.database.close()


@pytest.fixture
def sqlite_lab(tmp_path: Path, sqlite_url: str) -> Iterator[Lab]:
    migrate.upgrade(sqlite_url)
    lab = create_lab(tmp_path, sqlite_url)
    yield lab
    lab.database.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Settings:
    """Where there is nothing yet."""
    return Settings(data_dir=tmp_path / "new", database_url=f"sqlite:///{tmp_path / 'new.db'}")


def take(lab: Lab, place: Path, *, with_secret: bool = True) -> Taken:
    return Taking(lab.settings, lab.database, place, lambda count: None).run(with_secret=with_secret)


def restore(settings: Settings, place: Path, *, new_secret: bool = False) -> Record:
    return Restoring(settings, Backup.find(place), new_secret=new_secret).run(lambda count: None)


def is_untouched(settings: Settings) -> bool:
    engine = create_database_engine(settings.resolved_database_url)
    try:
        return not inspect(engine).get_table_names() and not settings.hub_dir.exists()
    finally:
        engine.dispose()


def unwritten(settings: Settings) -> list[str]:
    """Publications that are not whole, and damage in the Hub."""
    database, hub = Database(settings.resolved_database_url), HubStorage(settings.hub_dir)
    with database.engine.connect() as connection:
        published = published_variants(connection)
    database.close()
    assert published
    return [*map(str, lacking(published, hub)), *check_storage(hub).damage]


@pytest.mark.parametrize("target", ["sqlite_url", "postgresql_url"])
def test_what_is_restored_is_what_was_there_but_running_jobs_that_wait_again(
    lab: Lab, tmp_path: Path, target: str, request: pytest.FixtureRequest
) -> None:
    url = str(request.getfixturevalue(target))
    if url == lab.settings.database_url and target == "sqlite_url":
        url = f"sqlite:///{tmp_path / 'new.db'}"
    with lab.database.write() as session:  # an API process that runs while the backup is taken, and not where it goes
        presence.add(session, ServiceProcess(id="p", host="h", version="1", secrets="s", hub="local", broker="local"))
    taken = take(lab, tmp_path / "backups")
    before = all_rows(lab.database, tmp_path / "before")
    if url == lab.settings.database_url:  # one PostgreSQL database: emptied
        migrate.downgrade(url, "base")
    elsewhere = Settings(data_dir=tmp_path / "new", database_url=url)
    assert restore(elsewhere, tmp_path / "backups") == taken.record
    database = Database(url)
    after = all_rows(database, tmp_path / "after")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed <= {
        f"{name}.jsonl.gz" for name in ("jobs", "job_events", "job_attempts", "tenants", "service_processes", "tallies")
    }
    assert len(after["service_processes.jsonl.gz"]) == 1  # the names of its columns
    again = job_of(database, lab.running)
    assert (again.state, again.attempt, again.worker) == (JobState.QUEUED, 0, None)
    database.close()
    assert unwritten(elsewhere) == []
    assert HubStorage(elsewhere.hub_dir).open_repository("lab/model").settings.private
    assert elsewhere.secret_bytes() == SECRET.encode()
    assert (elsewhere.data_dir / "secret").stat().st_mode & 0o777 == 0o600
    os.umask(keep_private(elsewhere))  # the service starts


def test_what_an_earlier_backup_has_is_not_copied_again_and_goes_with_the_last_that_needs_it(
    sqlite_lab: Lab, tmp_path: Path
) -> None:
    place = tmp_path / "backups"
    first = take(sqlite_lab, place)
    sqlite_lab.publish("second", weights=WEIGHTS, more=b"new")
    second = take(sqlite_lab, place)
    assert (first.copied, second.copied, second.copied_bytes) == (2, 1, 3)
    sqlite_lab.hub.delete_repository(RepositoryId("lab", "second"))
    third = take(sqlite_lab, place)
    assert third.record.lacking
    gone: list[str] = []
    assert forget_old(place, 1, gone.append) == 3
    assert gone == [first.backup.folder.name, second.backup.folder.name]
    third.backup.check_blobs(lambda count: None)


def test_what_is_published_while_a_backup_is_taken_is_in_it_or_not_spoken_of(lab: Lab, tmp_path: Path) -> None:
    """Others publish and delete all the time."""
    stop, made = threading.Event(), threading.Semaphore(0)

    def go_on() -> None:
        number = 0
        while not stop.is_set():
            lab.publish(f"busy-{number}", weights=f"{number}".encode() * 1000)
            number += 1
            made.release()

    busy = threading.Thread(target=go_on)
    busy.start()
    try:
        for number in range(4):
            made.acquire()
            taken = take(lab, tmp_path / "backups")
            assert taken.record.lacking == []
            place = Settings(data_dir=tmp_path / f"new{number}", database_url=f"sqlite:///{tmp_path / f'{number}.db'}")
            restore(place, tmp_path / "backups")
            assert unwritten(place) == []
    finally:
        stop.set()
        busy.join()


def test_what_the_hub_has_lost_is_named_and_the_rest_is_backed_up(sqlite_lab: Lab, tmp_path: Path) -> None:
    sqlite_lab.publish("lost", weights=b"lost")
    sqlite_lab.blob("lost", "weights").write_bytes(b"tsol")
    done = admin(sqlite_lab.settings, "backup", tmp_path / "backups", "--with-secret")
    assert done.returncode == 3, done.stderr
    assert "'weights' of 'lab/lost'" in done.stderr
    elsewhere = Settings(data_dir=tmp_path / "new", database_url=f"sqlite:///{tmp_path / 'new.db'}")
    back = admin(elsewhere, "restore", tmp_path / "backups")
    assert back.returncode == 1
    assert "lab/lost" in back.stderr


def test_a_backup_that_is_killed_leaves_none_and_the_next_one_cleans_up(sqlite_lab: Lab, tmp_path: Path) -> None:
    place, weights = tmp_path / "backups", sqlite_lab.blob("model", "weights")
    with stuck_at(weights):
        process = start_admin(sqlite_lab.settings, "backup", place)
        kill_while_it_reads(process, weights)
    assert list((place / "backups").iterdir()) != []
    with pytest.raises(RequestFault, match="no whole backup"):
        Backup.find(place)
    taken = take(sqlite_lab, place)
    assert [path.name for path in (place / "backups").iterdir()] == [taken.backup.folder.name]
    assert [path.name for path in place.glob("blobs/*/.*")] == []
    taken.backup.check_blobs(lambda count: None)


def test_a_restore_that_is_killed_is_refused_by_the_service_and_goes_on(
    sqlite_lab: Lab, tmp_path: Path, elsewhere: Settings
) -> None:
    place = tmp_path / "backups"
    backup = take(sqlite_lab, place).backup
    digest = sqlite_lab.blob("model", "weights").name
    with stuck_at(backup.blob(digest)):
        kill_while_it_reads(start_admin(elsewhere, "restore", place), backup.blob(digest))
    assert is_untouched(elsewhere)
    with pytest.raises(InfrastructureFault, match=f"half restored from backup {backup.folder.name}"):
        keep_private(elsewhere)
    done = admin(elsewhere, "restore", place)
    assert done.returncode == 0, done.stderr
    assert unwritten(elsewhere) == []
    os.umask(keep_private(elsewhere))


def test_a_restore_killed_between_hub_and_database_goes_on(
    sqlite_lab: Lab, tmp_path: Path, elsewhere: Settings
) -> None:
    place = tmp_path / "backups"
    take(sqlite_lab, place)
    with FileLock(f"{tmp_path / 'new.db'}.migrating"):
        process = start_admin(elsewhere, "restore", place)
        servers.wait_until(lambda: elsewhere.hub_dir.exists() or process.poll() is not None, "the Hub", 60)
        process.kill()
        process.communicate()
    with pytest.raises(InfrastructureFault, match="half restored"):
        keep_private(elsewhere)
    assert admin(elsewhere, "restore", place).returncode == 0
    assert unwritten(elsewhere) == []


def test_a_backup_with_a_damaged_or_missing_file_is_refused_by_its_name(
    sqlite_lab: Lab, tmp_path: Path, elsewhere: Settings
) -> None:
    backup = take(sqlite_lab, tmp_path / "whole").backup
    files = [path.relative_to(tmp_path / "whole") for path in sorted((tmp_path / "whole").rglob("*")) if path.is_file()]
    files = [path for path in files if path.name != ".lock"]
    assert len(files) > 20
    for harm in (Path.unlink, flip_a_bit, cut_the_end):
        for name in files:
            refuse_harmed(tmp_path, name, harm, elsewhere)
    assert restore(elsewhere, tmp_path / "whole") == backup.record()


def refuse_harmed(tmp_path: Path, name: Path, harm: Callable[[Path], object], elsewhere: Settings) -> None:
    shutil.rmtree(tmp_path / "harmed", ignore_errors=True)
    shutil.copytree(tmp_path / "whole", tmp_path / "harmed")
    harm(tmp_path / "harmed" / name)
    with pytest.raises(PublisherError) as refused:
        restore(elsewhere, tmp_path / "harmed")
    assert name.name in str(refused.value) or "no whole backup" in str(refused.value), (name, refused.value)
    assert is_untouched(elsewhere)
    shutil.rmtree(elsewhere.data_dir, ignore_errors=True)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_a_place_in_use_is_refused(sqlite_lab: Lab, tmp_path: Path, elsewhere: Settings) -> None:
    place = tmp_path / "backups"
    take(sqlite_lab, place)
    with pytest.raises(RequestFault, match="has repositories"):
        restore(sqlite_lab.settings, place)
    in_use = elsewhere.model_copy(update={"database_url": sqlite_lab.settings.database_url})
    with pytest.raises(RequestFault, match="is in use: it has 2 tenants"):
        restore(in_use, place)
    restore(elsewhere, place)
    with pytest.raises(RequestFault, match="has repositories"):
        restore(elsewhere, place)


def test_without_its_secret_a_backup_asks_for_it(sqlite_lab: Lab, tmp_path: Path, elsewhere: Settings) -> None:
    place = tmp_path / "backups"
    backup = take(sqlite_lab, place, with_secret=False).backup
    assert SECRET not in "".join(path.read_text("latin-1") for path in backup.folder.rglob("*") if path.is_file())
    with pytest.raises(RequestFault, match="PUBLISHER_SECRET"):
        restore(elsewhere, place)
    assert is_untouched(elsewhere)
    with pytest.raises(RequestFault, match="PUBLISHER_SECRET"):
        restore(elsewhere.model_copy(update={"secret": Settings(secret="other").secret}), place)
    restore(elsewhere.model_copy(update={"secret": Settings(secret=SECRET).secret}), place)
    again = Settings(data_dir=tmp_path / "third", database_url=f"sqlite:///{tmp_path / 'third.db'}")
    restore(again, place, new_secret=True)


def test_two_backups_at_once_into_one_place_are_refused(sqlite_lab: Lab, tmp_path: Path) -> None:
    place, weights = tmp_path / "backups", sqlite_lab.blob("model", "weights")
    with stuck_at(weights):
        first = start_admin(sqlite_lab.settings, "backup", place)
        kill_while_it_reads(first, weights, lambda: refuse_second(sqlite_lab, place))


def refuse_second(lab: Lab, place: Path) -> None:
    with pytest.raises(PublisherError, match="Another backup"):
        take(lab, place)


class stuck_at:
    """A file that is a pipe meanwhile: who reads it waits for what the test writes."""

    def __init__(self, path: Path) -> None:
        self._path, self._kept = path, path.with_name("kept")

    def __enter__(self) -> None:
        self._path.rename(self._kept)
        os.mkfifo(self._path)

    def __exit__(self, *raised: object) -> None:
        self._path.unlink()
        self._kept.rename(self._path)


def kill_while_it_reads(
    process: subprocess.Popen[str], pipe: Path, meanwhile: Callable[[], None] = lambda: None
) -> None:
    with pipe.open("wb") as writing:  # waits for the reader
        writing.write(WEIGHTS[:100_000])
        meanwhile()
        process.send_signal(signal.SIGKILL)
        process.communicate()
