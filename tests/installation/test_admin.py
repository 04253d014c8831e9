"""`publisher admin migrate`, `reap` and `fsck`: what they say, and their exit codes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text, update

from publisher.errors import RequestFault
from publisher.settings import Settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.models import Variant
from publisher.store.states import JobState
from tests.installation.lab import Lab, admin, commit_files, create_lab, job_of
from tests.jobs.rows import let_pass

LAST, BEFORE_THE_LAST = [script.revision for script in migrate._all_scripts().walk_revisions()][:2]


@pytest.fixture
def lab(tmp_path: Path, sqlite_url: str) -> Iterator[Lab]:
    migrate.upgrade(sqlite_url)
    lab = create_lab(tmp_path, sqlite_url)
    yield lab
    lab.database.close()


def test_migrate_says_what_is_missing_and_does_it(lab: Lab) -> None:
    url = lab.settings.database_url
    assert admin(lab.settings, "migrate", "--check").returncode == 0
    migrate.downgrade(url, BEFORE_THE_LAST)
    missing = admin(lab.settings, "migrate", "--check")
    assert missing.returncode == 3
    assert missing.stdout.startswith(f"{LAST}  ")
    assert migrate.standing(url).revision == BEFORE_THE_LAST
    done = admin(lab.settings, "migrate")
    assert done.returncode == 0
    assert migrate.standing(url).pending == ()


def test_where_migrations_are_run_apart_no_process_starts_before(lab: Lab) -> None:
    apart = lab.settings.model_copy(update={"migrate_at_start": False})
    migrate.downgrade(apart.database_url, BEFORE_THE_LAST)
    with pytest.raises(RequestFault, match="publisher admin migrate"):
        migrate.prepare(apart)
    assert migrate.standing(apart.database_url).revision == BEFORE_THE_LAST
    migrate.prepare(lab.settings)
    migrate.prepare(apart)


def test_a_process_of_this_version_starts_over_the_tables_of_the_next(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    """As one that has to start again while others are upgraded; migrating by hand is refused."""
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    migrate.prepare(Settings(database_url=database_url))
    done = admin(Settings(database_url=database_url, data_dir=tmp_path), "migrate")
    assert done.returncode == 4
    assert "newer version" in done.stderr


def test_reap_says_what_it_took_and_sent(lab: Lab) -> None:
    let_pass(lab.database, lab.running, 3600)
    done = admin(lab.settings, "reap")
    assert done.returncode == 0, done.stderr
    assert f"{lab.running}: worker w1 has been silent" in done.stdout
    assert "1 lost, 2 sent" in done.stdout
    assert job_of(lab.database, lab.running).state is JobState.QUEUED
    assert "0 lost, " in admin(lab.settings, "reap").stdout


def test_reap_without_a_broker_says_so_and_leaves_what_waits(lab: Lab) -> None:
    away = admin(lab.settings, "reap", broker_url="redis://127.0.0.1:1/0")
    assert away.returncode == 3
    assert "2 could not be sent" in away.stderr
    assert "2 sent" in admin(lab.settings, "reap").stdout


def test_fsck_names_each_thing_that_is_lost_or_nobodys(lab: Lab) -> None:
    whole = admin(lab.settings, "fsck", "--contents")
    assert whole.returncode == 0, whole.stdout
    assert "1 publications in the embedded Hub" in whole.stdout
    lab.publish("short", weights=b"0123456789")
    lab.publish("changed", weights=b"abcdefghij")
    gone = lab.publish("gone", weights=b"x")
    lab.hub._at(lab.hub.open_repository("lab/gone").id).delete(lab.hub.trash)
    lab.blob("short", "weights").write_bytes(b"01234")
    lab.blob("changed", "weights").write_bytes(b"jihgfedcba")
    commit_files(lab.hub, "ten_of_nobody", "strange", {"a": b"b"}, namespace="other")
    found = admin(lab.settings, "fsck")
    assert found.returncode == 3
    lines = found.stdout.splitlines()[1:]
    assert [line for line in lines if gone in line and "There is no repository 'lab/gone'" in line]
    assert [line for line in lines if "'lab/short'" in line and "5 bytes instead of 10" in line]
    assert [line for line in lines if "namespace 'other' belongs to tenant ten_of_nobody" in line]
    assert [line for line in lines if "repository 'other/strange' belongs to tenant ten_of_nobody" in line]
    assert len(lines) == 4
    deep = admin(lab.settings, "fsck", "--contents")
    assert any("'lab/changed'" in line for line in deep.stdout.splitlines())


@pytest.mark.parametrize("lost", ["repos/lab/other/refs/tags", "repos/lab/other/commits", "namespaces"])
def test_fsck_names_a_folder_that_cannot_be_read_and_looks_at_the_rest(lab: Lab, lost: str) -> None:
    lab.publish("other", weights=b"abc")
    lab.publish("short", weights=b"0123456789")
    lab.blob("short", "weights").write_bytes(b"01234")
    folder = lab.settings.hub_dir / lost
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_bytes(b"")
    found = admin(lab.settings, "fsck")
    assert found.returncode == 3, found.stderr
    assert f"{folder} cannot be read: Not a directory." in found.stdout
    assert "5 bytes instead of 10" in found.stdout


def test_fsck_speaks_of_missing_migrations_and_of_other_hubs(lab: Lab) -> None:
    with lab.database.write() as session:
        elsewhere = {"endpoint": "https://hub.example", "repo_id": "org/small", "commit": "0" * 40, "url": ""}
        session.execute(update(Variant).where(Variant.id != lab.published).values(publication=elsewhere))
    assert "1 publications in the embedded Hub, 4 lie in other Hubs." in admin(lab.settings, "fsck").stdout
    migrate.downgrade(lab.settings.database_url, BEFORE_THE_LAST)
    found = admin(lab.settings, "fsck")
    assert found.returncode == 3
    assert f"migration {LAST} is missing" in found.stdout


@pytest.mark.parametrize("command", ["fsck", "reap"])
def test_a_database_without_tables_is_named_and_stays_empty(lab: Lab, command: str) -> None:
    migrate.downgrade(lab.settings.database_url, "base")
    done = admin(lab.settings, command)
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert "Error: The database has no tables" in done.stderr
    assert migrate.standing(lab.settings.database_url).revision is None
