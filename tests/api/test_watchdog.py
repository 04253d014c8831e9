"""Readiness is known before anybody asks, and a look that hangs is an answer, too."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import httpx
import pytest

from publisher.api import watchdog
from publisher.api.watchdog import OK, Look
from tests.api.conftest import serve_api


def test_a_look_that_hangs_counts_as_away_and_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "PATIENCE", 0.0)
    hold, begun, looks = threading.Event(), threading.Event(), [0]

    def check() -> str:
        looks[0] += 1
        begun.set()
        hold.wait(60)
        return OK

    async def scene() -> None:
        look = Look("thing", check)
        task = asyncio.create_task(look.run())
        await asyncio.to_thread(begun.wait)
        assert look.found().said.startswith("no answer for")
        hold.set()
        await look.looked.wait()
        assert look.found().said == OK
        assert looks == [1]
        task.cancel()

    asyncio.run(scene())


def test_a_look_that_breaks_is_told_and_goes_on() -> None:
    def check() -> str:
        raise ValueError

    async def scene() -> None:
        look = Look("thing", check)
        task = asyncio.create_task(look.run())
        await look.looked.wait()
        assert look.found().said == "cannot be looked at: ValueError"
        assert not task.done()
        task.cancel()

    asyncio.run(scene())


def test_little_room_on_the_disk_is_named_before_it_is_none(tmp_path: Path) -> None:
    with serve_api(tmp_path, ready_free_bytes=2**62) as api:
        answer = httpx.get(f"{api.url}/readyz")
        assert answer.status_code == 503
        said = answer.json()
        assert said["status"] == "degraded"
        assert f"the disk under {api.settings.data_dir} has" in said["disk"]
        assert said["storage"] == said["database"] == "ok"
