"""What the worker process itself is made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_worker_process_loads_neither_torch_nor_transformers(tmp_path: Path) -> None:
    script = "import sys, worker.celery, worker.tasks; print({'torch', 'transformers'} & sys.modules.keys())"
    environment = {"PUBLISHER_DATA_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_task_is_known_by_the_name_that_the_api_sends(tmp_path: Path) -> None:
    script = "import worker.tasks as t; from publisher.jobs.broker import RUN_JOB; t.app.tasks[RUN_JOB]"
    environment = {"PUBLISHER_DATA_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
