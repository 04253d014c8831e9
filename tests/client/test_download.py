"""A file over connections that break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from publisher.client import AsyncClient, Client
from publisher.client.exchange import Retries
from publisher.errors import RequestFault
from tests.servers import serve

CONTENT = bytes(range(256)) * 400
SOON = Retries(first=0.01)


@pytest.fixture
def broken() -> Iterator[tuple[str, list[str | None]]]:
    """Address and the ranges that were asked for: every connection but the third gives way after 40,000 bytes."""
    app, asked = FastAPI(), list[str | None]()

    @app.get("/v1/variants/{id}/files/{path:path}")
    async def read(id: str, path: str, request: Request) -> Response:
        wanted = request.headers.get("range")
        asked.append(wanted)
        if path == "missing":
            return Response('{"detail": "there is no missing."}', 404, media_type="application/problem+json")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0

        async def pieces() -> AsyncIterator[bytes]:
            yield CONTENT[start : start + 40_000]
            if len(asked) < 3:
                raise ConnectionError("as written down")
            yield CONTENT[start + 40_000 :]

        headers = {"Content-Length": str(len(CONTENT) - start)}
        return StreamingResponse(pieces(), 206 if wanted else 200, headers)

    with serve(app) as port:
        yield f"http://127.0.0.1:{port}", asked


def test_it_goes_on_where_it_was(broken: tuple[str, list[str | None]], tmp_path: Path) -> None:
    (url, asked), seen = broken, list[tuple[int, int]]()
    with Client(url, "key", retries=SOON) as client:
        client.read_variant_file("var_1", "w", tmp_path / "deep" / "w", progress=lambda *at: seen.append(at))
    assert (tmp_path / "deep" / "w").read_bytes() == CONTENT
    assert asked[0] is None
    assert len(asked) == 3
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_the_asynchronous_client_does_the_same(broken: tuple[str, list[str | None]], tmp_path: Path) -> None:
    async def fetch() -> None:
        async with AsyncClient(broken[0], "key", retries=SOON) as client:
            await client.read_variant_file("var_1", "w", tmp_path / "w")

    asyncio.run(fetch())
    assert (tmp_path / "w").read_bytes() == CONTENT


def test_a_file_that_is_not_there_leaves_nothing(broken: tuple[str, list[str | None]], tmp_path: Path) -> None:
    with Client(broken[0], "key") as client, pytest.raises(RequestFault, match="there is no missing"):
        client.read_variant_file("var_1", "missing", tmp_path / "w")
    assert list(tmp_path.iterdir()) == []
