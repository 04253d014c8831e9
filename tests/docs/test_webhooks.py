"""The receiver in docs/webhooks.md runs as pasted and believes nobody else; the page names every event."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx

from publisher.store.webhooks import sealer
from publisher.webhooks.register import EVENT_TYPES
from publisher.webhooks.sender import Answer, Message, Sender
from publisher.webhooks.signature import new_secret
from tests.docs.blocks import ROOT, blocks_of
from tests.servers import free_port, wait_until
from tests.webhooks.rows import fast

PAGE = ROOT / "docs" / "webhooks.md"


def test_the_receiver_takes_what_is_signed_and_nothing_else(tmp_path: Path) -> None:
    (block,) = [block for block in blocks_of(PAGE) if block.saved_as == "receiver.py"]
    secret, port = new_secret(), free_port()
    environment = {**os.environ, "WEBHOOK_SECRET": secret, "PORT": str(port)}
    command = [sys.executable, "-c", block.text]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        try:
            wait_until(lambda: _listens(port), "the receiver")
            assert [_sent(tmp_path, port, each).status for each in (secret, new_secret())] == [204, 401]
            assert run.stdout is not None
            assert run.stdout.readline() == "evt_1 job.failed {'job_id': 'job_1'}\n"
        finally:
            run.kill()


def _listens(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/").status_code == 501
    except httpx.TransportError:
        return False


def _sent(folder: Path, port: int, secret: str) -> Answer:
    settings = fast(folder)
    sealed = [sealer(settings).seal(secret, "hook_1")]
    message = Message(f"http://127.0.0.1:{port}/", "hook_1", "evt_1", "job.failed", 0.0, {"job_id": "job_1"}, sealed)

    async def once() -> Answer:
        async with Sender(settings) as sender:
            return await sender.send(message)

    return asyncio.run(once())


def test_the_page_tells_every_event_in_its_own_words() -> None:
    told = dict(re.findall(r"^\| `([a-z.]+)` \| (.*?) \|", PAGE.read_text(), re.MULTILINE))
    assert told == {each.name: each.words for each in EVENT_TYPES}
