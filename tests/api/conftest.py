"""A real server with everything that the API process runs; each test calls it as a tenant of its own."""

from __future__ import annotations

import json
import os
import secrets
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read by huggingface_hub when it is imported, which another test module may have done already: hence both ways.
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import httpx
import pytest
import uvicorn
from huggingface_hub import constants
from sqlalchemy import Engine, event

from publisher.app import create_app
from publisher.settings import Settings
from publisher.store import keys
from publisher.store.database import Database
from publisher.store.doorkeeper import Doorkeeper
from tests.models import tiny_llama
from tests.servers import listen

constants.HF_HUB_DISABLE_XET = True

Body = dict[str, Any]


@dataclass(frozen=True)
class RunningApi:
    """`roots`: the folder that models and corpora may lie in."""

    url: str
    settings: Settings
    database: Database
    roots: Path
    doorkeeper: Doorkeeper

    def tenant(self) -> Tenant:
        """A new tenant with a key."""
        key = keys.new_key()
        with self.database.write() as session:
            tenant = keys.add_tenant(session, f"tenant-{secrets.token_hex(6)}")
            keys.add_key(session, tenant.id, "test", key)
        return Tenant(tenant.id, tenant.name, key, self.url)


@dataclass(frozen=True)
class Tenant:
    id: str
    name: str
    key: str
    url: str

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)


def second_connections(engine: Engine) -> list[str]:
    """Where a thread of the service took a connection while it held one, as it goes on: enough of them at once wait for
    each other, since a pool has an end."""
    held, found = Counter[int](), list[str]()
    own = threading.main_thread().ident

    def taken(connection: object, record: object, proxy: object) -> None:
        thread = threading.get_ident()
        held[thread] += 1
        if held[thread] > 1 and thread != own:
            found.append("".join(traceback.format_stack(limit=25)))

    def given_back(connection: object, record: object) -> None:
        held[threading.get_ident()] -= 1

    event.listen(engine, "checkout", taken)
    event.listen(engine, "checkin", given_back)
    return found


@contextmanager
def serve_api(data: Path, **changes: Any) -> Iterator[RunningApi]:
    """The application on a free port until the block is left. The reaper sleeps, so that tests decide."""
    listener = listen()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    roots = data / "roots"
    roots.mkdir(parents=True)
    defaults: dict[str, Any] = {
        "local_roots": [roots],
        "public_url": url,
        "reaper_seconds": 3600,
        "base_model_endpoint": f"{url}/hub",
    }
    settings = Settings(data_dir=data / "data", **(defaults | changes))
    app = create_app(settings)
    nested = second_connections(app.state.service.database.engine)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        # waits in the listener's backlog until the application has started
        httpx.get(f"{url}/healthz", timeout=60).raise_for_status()
        yield RunningApi(url, settings, app.state.service.database, roots, app.state.service.doorkeeper)
    finally:
        server.should_exit = True
        thread.join()
    assert not nested, nested[0]


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with serve_api(tmp_path_factory.mktemp("api")) as running:
        tiny_llama(running.roots / "tiny")
        write_corpus(running.roots / "novel.jsonl")
        yield running


def write_corpus(path: Path, documents: int = 100, words: int = 200) -> Path:
    lines = (json.dumps({"text": f"Document {index}. " + "word " * words}) for index in range(documents))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def tenant(api: RunningApi) -> Tenant:
    return api.tenant()


@pytest.fixture
def client(tenant: Tenant) -> Iterator[httpx.Client]:
    with tenant.client() as client:
        yield client


@pytest.fixture
def stranger(api: RunningApi) -> Iterator[httpx.Client]:
    """Somebody else with a valid key."""
    with api.tenant().client() as client:
        yield client


@pytest.fixture
def base_model(api: RunningApi, client: httpx.Client) -> Body:
    return created(client.post("/v1/base-models", json={"path": str(api.roots / "tiny")}))


@pytest.fixture
def corpus(api: RunningApi, client: httpx.Client) -> Body:
    return created(client.post("/v1/corpora", json={"name": "novel", "path": str(api.roots / "novel.jsonl")}))


def created(response: httpx.Response) -> Body:
    assert response.status_code == 201, response.text
    return dict(response.json())


def recipe(**pruning: Any) -> Body:
    """Calibrates, aligns and evaluates on the corpus `novel`."""
    return {
        "pruning": {
            "ratio": 0.5,
            "protect_first": 1,
            "protect_last": 1,
            "calibration": {"corpus": "novel", "samples": 2, "sequence_length": 64},
        }
        | pruning,
        "alignment": {"corpora": [{"name": "novel"}], "tokens": 1024, "sequence_length": 64, "batch_tokens": 128},
        "evaluation": {"corpora": ["novel"], "sequence_length": 64},
    }


@pytest.fixture
def variant_body(tenant: Tenant, base_model: Body, corpus: Body) -> Body:
    """A request that is accepted."""
    publish = {"repo_id": f"{tenant.name}/tiny", "private": False}
    return {"base_model_id": base_model["id"], "recipe": recipe(), "publish": publish}


def refused(response: httpx.Response, status: int, field: str | None = None) -> str:
    """Check that the answer is problem details of this status (naming this field); returns the message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert {"type", "title", "status", "detail", "instance"} <= problem.keys()
    assert problem["status"] == status
    assert problem["instance"] == response.request.url.path
    if field is None:
        return str(problem["detail"])
    messages = {error["field"]: error["message"] for error in problem["errors"]}
    assert field in messages, problem
    return str(messages[field])
