"""API processes over one database share what they have to, or the second one does not start."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from publisher.errors import RequestFault
from publisher.installation.presence import Presence
from publisher.installation.secret import agree
from publisher.settings import Settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.models import ServiceProcess
from publisher.store.presence import GONE_AFTER

SHARED = {"secret": "the same everywhere", "broker_url": "redis://u:secret@broker/0"}


def settings(folder: Path, **changes: object) -> Settings:
    return Settings(data_dir=folder, **(SHARED | changes))  # type: ignore[arg-type]


@contextmanager
def running(chosen: Settings, database: Database) -> Iterator[Presence]:
    presence = Presence(chosen, database, seen_every=0.1)
    presence.start()
    try:
        yield presence
    finally:
        presence.stop()


def refused(chosen: Settings, database: Database) -> str:
    with pytest.raises(RequestFault) as fault:
        Presence(chosen, database).start()
    return str(fault.value)


def count(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(ServiceProcess)) or 0


def test_processes_that_share_all_run_beside_each_other_and_leave_nothing(database: Database, tmp_path: Path) -> None:
    shared, local = settings(tmp_path / "a"), SHARED | {"broker_url": "filesystem://"}
    with running(shared, database), running(shared, database), running(shared, database):
        assert count(database) == 3
    assert count(database) == 0
    with running(settings(tmp_path / "a", **local), database), running(settings(tmp_path / "a", **local), database):
        assert count(database) == 2
    assert list(tmp_path.rglob("processes/*")) == []


def test_what_is_not_shared_is_refused_by_name_with_the_way_out(database: Database, tmp_path: Path) -> None:
    with running(settings(tmp_path / "a"), database) as first:
        said = refused(settings(tmp_path / "b"), database)
        assert str(tmp_path / "b" / "hub") in said
        assert "PUBLISHER_HUB_ENDPOINT" in said
        shutil.copytree(tmp_path / "a", tmp_path / "copy")  # an image of before the first was started
        (tmp_path / "copy" / "hub" / "processes" / first.id).unlink()
        assert "Mount one shared file system" in refused(settings(tmp_path / "copy"), database)
        other_secret = refused(settings(tmp_path / "a", secret="another-value"), database)
        assert "PUBLISHER_SECRET" in other_secret
        assert "another-value" not in other_secret
        elsewhere = refused(settings(tmp_path / "a", hub_endpoint="https://hub.example"), database)
        assert "The Hub is https://hub.example" in elsewhere
        broker = refused(settings(tmp_path / "a", broker_url="redis://other/1"), database)
        assert "redis://broker/0" in broker
        assert "u:secret" not in broker
        assert count(database) == 1
    with running(settings(tmp_path / "b"), database):
        assert count(database) == 1


def test_a_hub_elsewhere_needs_no_shared_folder(database: Database, tmp_path: Path) -> None:
    hub = {"hub_endpoint": "https://hub.example"}
    with running(settings(tmp_path / "a", **hub), database), running(settings(tmp_path / "b", **hub), database):
        assert count(database) == 2


def test_messages_in_a_folder_are_for_machines_that_share_it(database: Database, tmp_path: Path) -> None:
    both = {"hub_endpoint": "https://hub.example", "broker_url": "filesystem://"}
    with running(settings(tmp_path / "a", **both), database):
        assert "The broker lies in" in refused(settings(tmp_path / "b", **both), database)


def test_sqlite_is_for_one_machine(sqlite_url: str, tmp_path: Path) -> None:
    migrate.upgrade(sqlite_url)
    database = Database(sqlite_url)
    with running(settings(tmp_path / "a"), database):
        with database.write() as session:
            session.execute(update(ServiceProcess).values(host="another"))
        assert "SQLite is for one machine" in refused(settings(tmp_path / "a"), database)
    database.close()


def test_one_that_was_killed_is_not_in_the_way(database: Database, tmp_path: Path) -> None:
    with running(settings(tmp_path / "a"), database) as killed:
        with database.write() as session:
            session.execute(update(ServiceProcess).values(id="killed", seen_at=ServiceProcess.seen_at - GONE_AFTER - 1))
        with running(settings(tmp_path / "b"), database), database.read() as session:
            assert "killed" not in session.scalars(select(ServiceProcess.id)).all()
        assert killed.id


def test_in_the_middle_of_a_replacement_each_accepts_what_the_other_signs() -> None:
    assert agree(["old"], ["old"])
    assert agree(["old", "new"], ["new", "old"])
    assert not agree(["old"], ["new", "old"])  # the first would not accept what the second signs
    assert not agree(["old"], ["new"])
