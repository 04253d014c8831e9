"""Threads of processes that compute on a CPU sleep while they wait, which OpenMP has to know before torch loads it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from publisher.client.demo.data import prepare_model
from publisher.client.demo.service import downstream
from publisher.errors import InfrastructureFault
from publisher.families import describe
from publisher.families.shared_answers import SharedAnswers
from publisher.settings import Settings
from publisher.store import migrate
from publisher.store.database import Database
from tests.architecture.test_geometry import LLAMA_2_13B
from tests.idle_threads import policies, watching
from tests.jobs import rows
from worker.jobs.registration import measure
from worker.jobs.supervision import start_child


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where processes that are started from here on tell when they load torch."""
    for name, value in watching(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    return tmp_path


def test_a_job_s_process(watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLISHER_DATA_DIR", str(watched / "data"))
    migrate.upgrade(Settings().resolved_database_url)
    database = Database(Settings().resolved_database_url)
    start_child(rows.claim(database, rows.add_job(database))).wait(60)
    database.close()
    assert policies(watched) == ["PASSIVE"]


def test_the_process_that_measures_a_machine(watched: Path) -> None:
    with pytest.raises(InfrastructureFault):
        measure(Settings(data_dir=watched, worker_device="cpu"))
    assert policies(watched) == ["PASSIVE"]


def test_a_policy_that_somebody_chose_stays(watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    with pytest.raises(InfrastructureFault):
        measure(Settings(data_dir=watched, worker_device="cpu"))
    assert policies(watched) == ["ACTIVE"]


def test_a_build_on_the_command_line(watched: Path) -> None:
    recipe = watched / "recipe.json"
    recipe.write_text('{"pruning": {"criterion": "magnitude", "ratio": 0.5}, "alignment": null, "evaluation": null}')
    command = [sys.executable, "-m", "publisher.client.main", "build", "base", "out", "--recipe", str(recipe)]
    subprocess.run(command, cwd=watched, check=False)
    assert policies(watched) == ["PASSIVE"]


def test_the_process_that_asks_transformers_for_a_family_s_structure(
    watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(describe, "_processes", SharedAnswers(describe._run_process, kept=1))
    with pytest.raises(InfrastructureFault):
        describe._elsewhere(json.dumps(LLAMA_2_13B))
    assert policies(watched) == ["PASSIVE"]


def test_the_demo_s_downstream_user(watched: Path) -> None:
    with pytest.raises(InfrastructureFault, match="train LoRA failed"):
        downstream(Console(quiet=True), "train LoRA", ["train"], {})
    assert policies(watched) == ["PASSIVE"]


def test_the_demo_s_conversion(watched: Path) -> None:
    with pytest.raises(InfrastructureFault, match="could not be converted"):
        prepare_model(watched / "models")
    assert policies(watched) == ["PASSIVE"]
