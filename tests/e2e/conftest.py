"""A real service: `publisher up` in processes of its own, a tiny random model, text made here."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from publisher.client.client import Client
from tests.checkpoint.published import make_keys
from tests.models import tiny_llama
from tests.servers import free_pair

KEY = "loram_end-to-end-test-key"
WORDS = [
    "the",
    "ship",
    "sea",
    "whale",
    "man",
    "old",
    "deck",
    "sail",
    "wind",
    "captain",
    "of",
    "and",
    "in",
    "to",
    "a",
    "his",
    "was",
    "with",
    "it",
    "from",
]


def write_text(path: Path, documents: int = 120, words: int = 220, seed: int = 0) -> Path:
    """Documents of random sentences, one JSON object a line."""
    chance = random.Random(seed)
    lines = (json.dumps({"text": " ".join(chance.choices(WORDS, k=words)) + "."}) for _ in range(documents))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@dataclass
class Service:
    """`publisher up`, and what tests do to it."""

    url: str
    data: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    def client(self) -> Client:
        return Client(self.url, KEY)

    def worker(self) -> psutil.Process:
        """The Celery worker that `up` supervises."""
        return self._child("celery")

    def api(self) -> psutil.Process:
        return self._child("publisher.app:app")

    def _child(self, module: str) -> psutil.Process:
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if module in child.cmdline())

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def start_service(data: Path) -> Service:
    port = free_pair()
    data.mkdir(parents=True, exist_ok=True)
    signing = data / "key.pem"
    environment = os.environ | {
        "PUBLISHER_SIGNING_KEY_FILE": str(signing if signing.exists() else make_keys(data).private),
        "PUBLISHER_BOOTSTRAP_KEY": KEY,
        "PUBLISHER_LEASE_SECONDS": "6",
        "PUBLISHER_HEARTBEAT_SECONDS": "1",
        "PUBLISHER_REAPER_SECONDS": "1",
        "PUBLISHER_REDISPATCH_SECONDS": "5",
        "PUBLISHER_RETRY_BACKOFF_SECONDS": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "publisher.client.main", "up", "--port", str(port), "--data", str(data)]
    with (data / "up.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    return Service(f"http://127.0.0.1:{port}", data, environment, process)


def wait_ready(service: Service) -> None:
    """Until `up` says so: API and worker are there, and it supervises them."""
    for _ in range(600):
        assert service.process.poll() is None, (service.data / "up.log").read_text()[-4000:]
        if "Ctrl-C stops the service" in (service.data / "up.log").read_text():
            return
        try:
            service.process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    pytest.fail((service.data / "up.log").read_text()[-4000:])


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = start_service(tmp_path_factory.mktemp("service"))
    try:
        wait_ready(service)
        yield service
    finally:
        service.stop()


@pytest.fixture(scope="session")
def base_model(service: Service) -> dict[str, Any]:
    """A registered tiny model with grouped-query attention."""
    folder = tiny_llama(service.data / "models" / "tiny")
    with service.client() as client:
        return client.post("/v1/base-models", {"path": str(folder)})


@pytest.fixture(scope="session")
def corpora(service: Service) -> dict[str, Path]:
    """Registered corpora `general` and `novel`."""
    paths = {
        "general": write_text(service.data / "corpora" / "general.jsonl", documents=400, seed=1),
        "novel": write_text(service.data / "corpora" / "novel.jsonl", documents=120, seed=2),
    }
    with service.client() as client:
        for name, path in paths.items():
            client.post("/v1/corpora", {"name": name, "path": str(path)})
    return paths


def recipe(**changes: Any) -> dict[str, Any]:
    """A whole recipe that a tiny model runs in seconds."""
    return {
        "pruning": {
            "criterion": "taylor",
            "ratio": 0.5,
            "protect_first": 1,
            "protect_last": 1,
            "calibration": {"corpus": "general", "samples": 4, "sequence_length": 64},
        },
        "alignment": {
            "corpora": [{"name": "general"}],
            "tokens": 8192,
            "sequence_length": 64,
            "batch_tokens": 512,
            "learning_rate": 1e-3,
        },
        "evaluation": {
            "corpora": ["novel"],
            "tokens": 2048,
            "sequence_length": 64,
            "probe_budget": {"steps": 10, "batch_size": 4, "sequence_length": 64},
        },
    } | changes
