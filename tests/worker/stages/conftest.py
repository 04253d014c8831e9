"""The embedded Hub on a real port, and a small checkpoint to publish."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi import FastAPI
from huggingface_hub import HfApi
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from publisher.hub.owner import Owner
from publisher.hub.router import create_hub
from publisher.hub.storage import HubStorage
from publisher.recipe import Pruning, Recipe
from tests.checkpoint.pruned import make_pair, save_checkpoint
from tests.servers import serve
from worker.request import BaseModelSource, BuildRequest, PublishTarget

TOKENS = {"hub-token-of-org": Owner("tenant-a", "org"), "hub-token-of-rival": Owner("tenant-b", "rival")}
RECIPE = Recipe(pruning=Pruning(criterion="magnitude", ratio=0.5))


@dataclass(frozen=True)
class RunningHub:
    """`damaged` are files whose bytes change on the way to whoever downloads them."""

    endpoint: str
    damaged: set[str]

    def api(self) -> HfApi:
        return HfApi(endpoint=self.endpoint, token="hub-token-of-org")

    def request(self, repo_id: str, *, private: bool = False, token: str = "hub-token-of-org") -> BuildRequest:
        return BuildRequest(
            base=BaseModelSource("org/base", "c" * 40),
            recipe=RECIPE,
            corpora={},
            publish=PublishTarget(self.endpoint, repo_id, private, token),
        )


class Damaging:
    """Flips the first byte of the downloads of chosen files."""

    def __init__(self, app: ASGIApp, damaged: set[str]) -> None:
        self.app, self.damaged = app, damaged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        chosen = scope.get("method") == "GET" and scope.get("path", "").rpartition("/")[2] in self.damaged
        await self.app(scope, receive, self._flipping(send) if chosen else send)

    def _flipping(self, send: Send) -> Send:
        async def flipping(message: Message) -> None:
            body = message.get("body", b"")
            if body:
                message = {**message, "body": bytes([body[0] ^ 1]) + body[1:]}
            await send(message)

        return flipping


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    app, damaged = FastAPI(), set[str]()
    storage = HubStorage(tmp_path_factory.mktemp("hub"))
    app.mount("/hub", create_hub(storage, authenticate=TOKENS.get, secret=b"a secret of the tests, 32 bytes."))
    with serve(Damaging(app, damaged)) as port:
        yield RunningHub(f"http://127.0.0.1:{port}/hub", damaged)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), make_pair().pruned)


@pytest.fixture
def checkpoint(original: Path, tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(original, tmp_path / "checkpoint"))


@pytest.fixture
def output(tmp_path: Path) -> Callable[[], Path]:
    """A new empty folder with every call, as a stage gets it."""
    made: list[Path] = []

    def make() -> Path:
        made.append(tmp_path / f"output-{len(made)}")
        made[-1].mkdir()
        return made[-1]

    return make
