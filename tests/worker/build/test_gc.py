"""`publisher admin gc`: what it says is what it does, and no job that is not over loses anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from publisher.errors import RequestFault
from publisher.recipe.stages import Stage
from publisher.settings import Settings, settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.models import Job
from publisher.store.states import JobState
from tests.jobs import rows
from worker.build.gc import gc
from worker.jobs.upkeep import going_on, stage_limits
from worker.storage.store import StageStore


@pytest.fixture(autouse=True)
def _own_settings() -> None:
    settings.cache_clear()


def collected(*options: str) -> Result:
    done = CliRunner().invoke(gc, list(options))
    assert done.exit_code == 0, done.output
    return done


def make(root: Path, digest: str, user: str = "build") -> Path:
    def write(partial: Path) -> None:
        (partial / "w").write_bytes(b"x" * 999)

    return StageStore(root, user).produce(Stage.PRUNE, digest, write)[0]


def service(tmp_path: Path) -> tuple[Database, str]:
    data = tmp_path / "data"
    url = Settings(data_dir=data).resolved_database_url
    migrate.upgrade(url)
    database = Database(url)
    return database, rows.add_job(database)


def test_a_dry_run_lists_each_thing_with_its_size_and_reason(tmp_path: Path) -> None:
    database, _ = service(tmp_path)
    folder = make(tmp_path / "data" / "stages", "a" * 64)
    said = collected("--data", str(tmp_path / "data"), "--limit", "0", "--dry-run").output
    assert folder.exists()
    assert f"stage {folder.name}: last used " in said
    assert "would free 1.3 KiB in 1 folders" in said
    assert "Stages: freed 1.3 KiB" in collected("--data", str(tmp_path / "data"), "--limit", "0").output
    assert not folder.exists()
    database.close()


def test_a_job_that_is_not_over_keeps_what_it_asked_for(tmp_path: Path) -> None:
    database, job_id = service(tmp_path)
    folder = make(tmp_path / "data" / "stages", "a" * 64, user=job_id)
    collected("--data", str(tmp_path / "data"), "--limit", "0")
    assert folder.exists(), "queued"
    with database.write() as session:
        session.get_one(Job, job_id).state = JobState.FAILED
    collected("--data", str(tmp_path / "data"), "--limit", "0")
    assert not folder.exists()
    database.close()


def test_while_the_database_is_away_every_job_goes_on() -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/nothing")
    assert going_on(away)(frozenset({"job_1"})) == {"job_1"}
    away.close()


def test_a_folder_of_builds_is_collected_by_its_own_limit(tmp_path: Path) -> None:
    folder = make(tmp_path / "work", "a" * 64)
    collected("--work", str(tmp_path / "work"), "--limit", "1MiB")
    assert folder.exists()
    collected("--work", str(tmp_path / "work"), "--limit", "1KiB")
    assert not folder.exists()


def test_a_mistyped_folder_or_size_is_refused(tmp_path: Path) -> None:
    assert CliRunner().invoke(gc, ["--data", str(tmp_path / "nowhere")]).exit_code != 0
    assert "no size" in CliRunner().invoke(gc, ["--work", str(tmp_path), "--limit", "much"]).output


def test_another_user_than_the_service_s_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What root leaves there is closed to the service."""
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    refused = CliRunner().invoke(gc, ["--data", str(tmp_path)])
    assert isinstance(refused.exception, RequestFault)
    assert f"sudo -u '#{owner}'" in str(refused.exception)


def test_limits_are_the_settings_or_a_share_of_the_disk(tmp_path: Path) -> None:
    unset = stage_limits(Settings(data_dir=tmp_path / "data"))
    assert unset.most is None
    assert 0 < unset.keep_free <= 4 * 2**30
    chosen = Settings.model_validate({"data_dir": tmp_path, "stages_bytes": "2TiB", "disk_free_bytes": 0})
    assert (stage_limits(chosen).most, stage_limits(chosen).keep_free) == (2 * 2**40, 0)
