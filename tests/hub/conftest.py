"""A real server with the Hub under /hub, driven by the real client."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Read by huggingface_hub when it is imported, which another test module may have done already: hence both ways.
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import pytest
from fastapi import FastAPI
from huggingface_hub import HfApi, constants

from publisher.hub.owner import Owner
from publisher.hub.router import create_hub
from publisher.hub.storage import HubStorage
from publisher.hub.uploads import OWN_CLIENT
from tests.servers import serve

constants.HF_HUB_DISABLE_XET = True

ALICE = Owner("tenant-a", "alice")
BOB = Owner("tenant-b", "bob")
TOKENS = {"token-of-alice": ALICE, "token-of-bob": BOB}
SECRET = b"a secret of the tests, 32 bytes."


@dataclass(frozen=True)
class RunningHub:
    """`endpoint` is what users set HF_ENDPOINT to."""

    endpoint: str
    storage: HubStorage

    def api(self, name: str | None = None) -> HfApi:
        """The client of alice, of bob, or of nobody, as workers are: one that says that Xet is switched off."""
        return HfApi(endpoint=self.endpoint, token=f"token-of-{name}" if name else False, library_name=OWN_CLIENT)


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    storage = HubStorage(tmp_path_factory.mktemp("hub"))
    app = FastAPI(max_body_size=1_000_000)  # the service's own limit must not stop uploads
    app.mount("/hub", create_hub(storage, authenticate=TOKENS.get, secret=SECRET))
    with serve(app) as port:
        yield RunningHub(f"http://127.0.0.1:{port}/hub", storage)


@pytest.fixture
def alice(hub: RunningHub) -> HfApi:
    return hub.api("alice")


@pytest.fixture
def bob(hub: RunningHub) -> HfApi:
    return hub.api("bob")


@pytest.fixture
def anybody(hub: RunningHub) -> HfApi:
    return hub.api()


@pytest.fixture
def repo(alice: HfApi, request: pytest.FixtureRequest) -> str:
    """A fresh public repository of alice."""
    return str(alice.create_repo(f"alice/{name_of(request)}").repo_id)


def name_of(request: pytest.FixtureRequest) -> str:
    """The test's name, as far as it can name a repository; never the same twice."""
    readable = re.sub(r"\W+", "_", str(request.node.name), flags=re.ASCII).removeprefix("test_")
    return f"{readable[:80]}_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def client_environment(hub: RunningHub, tmp_path: Path) -> dict[str, str]:
    """For a client in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    return kept | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "token-of-alice",
        "OMP_NUM_THREADS": "1",
    }
