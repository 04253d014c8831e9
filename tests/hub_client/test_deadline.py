"""A Hub that drips its answers is given up in time, though every piece comes soon enough."""

from __future__ import annotations

import asyncio

import pytest
from huggingface_hub import HfApi
from starlette.types import Receive, Scope, Send

from publisher.base_model.repository import HubFiles
from publisher.errors import InfrastructureFault
from publisher.hub_client.deadline import answers_within
from tests.servers import serve


async def dripping_hub(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    listening = asyncio.create_task(_gone(receive))
    while not listening.done():
        await send({"type": "http.response.body", "body": b" ", "more_body": True})
        await asyncio.wait({listening}, timeout=0.02)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def test_a_dripping_hub_is_given_up_and_named() -> None:
    with serve(dripping_hub) as port:
        url = f"http://127.0.0.1:{port}"
        with answers_within(0.3), pytest.raises(InfrastructureFault, match=f"Hub {url} did not answer for org/model"):
            HubFiles.resolve("org/model", None, url, None)
        with answers_within(0), pytest.raises(InfrastructureFault, match="took too long in all"):
            HubFiles.resolve("org/model", None, url, None)


async def prompt_hub(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b'{"id": "org/model", "sha": "abc"}'})


def test_outside_the_block_nothing_is_bounded() -> None:
    with serve(prompt_hub) as port:
        api = HfApi(endpoint=f"http://127.0.0.1:{port}", token=False)
        with answers_within(60):
            assert api.model_info("org/model").sha == "abc"
        assert api.model_info("org/model").sha == "abc"
