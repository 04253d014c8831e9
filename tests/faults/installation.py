"""A whole installation in real processes, which tests kill, stop and starve."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import httpx
import psutil
import redis
from huggingface_hub import HfApi
from sqlalchemy import delete, select

from publisher.client.client import Client
from publisher.settings import Settings
from publisher.store.database import Database
from publisher.store.models import Job, Worker
from publisher.store.states import JobState
from tests import servers
from tests.jobs import rows
from tests.models import tiny_llama

KEY = "loram_fault-test-key"
LEASE_SECONDS = 6
CANCEL_GRACE_SECONDS = 2
WORDS = ("the", "ship", "sea", "whale", "man", "old", "deck", "sail", "wind", "captain", "of", "and", "in", "his")


@dataclass
class Installation:
    """`environment` is what every process runs with."""

    folder: Path
    url: str
    settings: Settings
    environment: dict[str, str]
    database: Database
    base_model_id: str = ""
    processes: list[psutil.Popen] = field(default_factory=list)

    @classmethod
    def create(
        cls, folder: Path, database_url: str, broker_url: str, changes: Mapping[str, object] | None = None
    ) -> Installation:
        """`changes`: settings (LEASE_SECONDS, …) that are others than here."""
        url = f"http://127.0.0.1:{servers.free_port()}"
        fast = {
            "LEASE_SECONDS": LEASE_SECONDS,
            "HEARTBEAT_SECONDS": 1,
            "REAPER_SECONDS": 0.5,
            "REDISPATCH_SECONDS": 2,
            "CANCEL_GRACE_SECONDS": CANCEL_GRACE_SECONDS,
            "RETRY_BACKOFF_SECONDS": 0.1,
        }
        places = {
            "DATA_DIR": folder / "data",
            "DATABASE_URL": database_url,
            "BROKER_URL": broker_url,
            "PUBLIC_URL": url,
            "LOCAL_ROOTS": json.dumps([str(folder)]),
            "BOOTSTRAP_KEY": KEY,
        }
        own = {f"PUBLISHER_{name}": str(value) for name, value in (places | fast | dict(changes or {})).items()}
        settings = Settings(data_dir=folder / "data", broker_url=broker_url, database_url=database_url)
        return cls(folder, url, settings, os.environ | own | {"OMP_NUM_THREADS": "1"}, Database(database_url))

    def start_api(self) -> psutil.Popen:
        api = self.spawn_api()
        servers.wait_until(lambda: self.is_ready() or not api.is_running(), "start of the API", 120)
        assert api.is_running(), self.log("api")
        return api

    def start_worker(self, name: str = "w1") -> psutil.Popen:
        """Returns when the worker takes jobs."""
        worker = self.spawn_worker(name)
        servers.wait_until(lambda: self.was_seen(name, worker), f"registration of {name}", 120)
        return worker

    def start_nameless_worker(self, name: str, **settings: str) -> str:
        """As people start one, with further PUBLISHER_* variables; `name` is its log's. Returns the name that it gave
        itself, when it takes jobs."""
        known = set(self.worker_names())
        module = ["celery", "-A", "worker.celery", "worker", "--pool", "threads", "--concurrency", "1"]
        process = self._start(name, module, {f"PUBLISHER_{key.upper()}": value for key, value in settings.items()})
        assert process.poll() is None
        servers.wait_until(lambda: bool(set(self.worker_names()) - known), f"registration of {name}", 120)
        (new,) = set(self.worker_names()) - known
        return new

    def worker_names(self) -> list[str]:
        with self.database.read() as session:
            return list(session.scalars(select(Worker.id)))

    def spawn_api(self) -> psutil.Popen:
        """Returns at once; `is_ready` says when it answers."""
        host, port = self.url.removeprefix("http://").split(":")
        return self._start("api", ["uvicorn", "publisher.app:app", "--host", host, "--port", port])

    def spawn_worker(self, name: str) -> psutil.Popen:
        """Returns at once; `was_seen` says when it takes jobs."""
        celery = ["celery", "-A", "worker.celery", "worker", "-n", name, "--loglevel", "INFO"]
        return self._start(name, [*celery, "--pool", "threads", "--concurrency", "1"])

    def _start(self, name: str, module: list[str], more: Mapping[str, str] = MappingProxyType({})) -> psutil.Popen:
        environment = self.environment | dict(more)
        with (self.folder / f"{name}.log").open("ab") as log:
            process = psutil.Popen([sys.executable, "-m", *module], env=environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).is_success
        except httpx.TransportError:
            return False

    def was_seen(self, name: str, process: psutil.Popen) -> bool:
        assert process.poll() is None, self.log(name)
        with self.database.read() as session:  # one column: the tables may be those of the version before
            seen_at = session.scalar(select(Worker.seen_at).where(Worker.id == f"celery@{name}"))
        return seen_at is not None and seen_at > process.create_time()

    def stop_workers(self) -> None:
        """Kill whatever still runs but the API, with what it started."""
        for process in self.processes[1:]:
            kill_family(process)
        del self.processes[1:]

    def forget_workers(self) -> None:
        """As if those that were stopped had been silent for long."""
        with self.database.write() as session:
            session.execute(delete(Worker))

    def stop(self) -> None:
        for process in self.processes:
            kill_family(process)
        self.database.close()

    def client(self) -> Client:
        return Client(self.url, KEY)

    def register(self) -> None:
        """A tiny model and enough text to align it for a minute."""
        model = tiny_llama(self.folder / "base")
        chance = random.Random(0)
        lines = [json.dumps({"text": " ".join(chance.choices(WORDS, k=2000))}) for _ in range(60)]
        (self.folder / "text.jsonl").write_text("\n".join(lines))
        with self.client() as client:
            self.base_model_id = client.post("/v1/base-models", {"path": str(model)})["id"]
            client.post("/v1/corpora", {"name": "text", "path": str(self.folder / "text.jsonl")})

    def make_variant(self, repo_id: str, *, tokens: int) -> str:
        """Queue a variant that is aligned on `tokens` tokens, 64 a step; returns the job's id."""
        alignment = {
            "corpora": [{"name": "text"}],
            "tokens": tokens,
            "sequence_length": 32,
            "batch_tokens": 64,
            "learning_rate": 1e-4 + random.SystemRandom().random() * 1e-5,  # no stage of another test is reused
        }
        recipe = {
            "pruning": {"criterion": "random", "ratio": 0.5, "protect_first": 1, "protect_last": 1},
            "alignment": alignment,
            "quantization": {"scheme": "none"},
        }
        body = {"base_model_id": self.base_model_id, "recipe": recipe, "publish": {"repo_id": repo_id}}
        with self.client() as client:
            return str(client.post("/v1/variants", body)["job"]["id"])

    def job(self, job_id: str) -> Job:
        return rows.load(self.database, job_id)

    def wait_for(self, job_id: str, reached: Callable[[Job], bool], what: str, seconds: float = 120) -> Job:
        try:
            servers.wait_until(lambda: reached(self.job(job_id)), what, seconds)
        except TimeoutError as error:
            events = rows.read_events(self.database, job_id)[-5:]
            raise TimeoutError(f"{error}; {job_id} is {self.job(job_id).state}: {events}") from error
        return self.job(job_id)

    def wait_for_state(self, job_id: str, state: JobState, seconds: float = 120) -> Job:
        return self.wait_for(job_id, lambda job: job.state is state or job.state.finished, f"state {state}", seconds)

    def wait_until_aligning(self, job_id: str, losses: int = 5) -> None:
        """Until so many losses were reported in this and earlier tries. Reads events alone: the tables may be those of
        the version before."""

        def is_aligning() -> bool:
            events = rows.read_events(self.database, job_id)
            ended = [event for event in events if event.kind == "state" and JobState(event.data["state"]).finished]
            assert not ended, events
            return len([event for event in events if event.kind == "metric"]) >= losses

        servers.wait_until(is_aligning, f"alignment of {job_id}", 120)

    def publications(self, repo_id: str) -> int:
        """Commits in the repository, without the one that created it; 0 if there is no repository."""
        hub = HfApi(endpoint=f"{self.url}/hub", token=KEY)
        if not hub.repo_exists(repo_id):
            return 0
        return len([commit for commit in hub.list_repo_commits(repo_id) if commit.title.startswith("Publish")])

    def wipe_broker(self) -> None:
        if self.settings.broker_url.startswith("redis"):
            with redis.Redis.from_url(self.settings.broker_url) as client:
                client.flushall()
        else:
            for message in (self.settings.data_dir / "broker" / "messages").iterdir():
                message.unlink(missing_ok=True)


def child_of(worker: psutil.Popen) -> psutil.Process:
    """The process that runs the worker's job."""
    return next(child for child in worker.children() if "worker.jobs.child" in child.cmdline())


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def kill_family(process: psutil.Popen) -> None:
    if process.poll() is not None:
        return
    family = [process, *process.children(recursive=True)]
    for member in family:
        if member.is_running():
            member.send_signal(signal.SIGKILL)
    process.wait()
