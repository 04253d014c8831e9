"""What the worker process itself is made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from publisher.jobs.broker import create_celery
from publisher.settings import Settings


def test_worker_process_loads_neither_torch_nor_transformers(tmp_path: Path) -> None:
    script = "import sys, worker.celery, worker.tasks; print({'torch', 'transformers'} & sys.modules.keys())"
    environment = {"PUBLISHER_DATA_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_broker_of_files_is_connected_to_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with create_celery(Settings(data_dir=tmp_path)).connection() as connection:
        connection.info()
    assert not caplog.records


def test_task_is_known_by_the_name_that_the_api_sends(tmp_path: Path) -> None:
    script = "import worker.tasks as t; from publisher.jobs.broker import RUN_JOB; t.app.tasks[RUN_JOB]"
    environment = {"PUBLISHER_DATA_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
