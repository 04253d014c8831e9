"""Answering with a stored file, whole or a part of it, so that a damaged one never looks like a good one."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from publisher.hub.faults import Damaged
from publisher.hub.reading import StoredContent

_logger = logging.getLogger(__name__)
_RANGE = re.compile(r"bytes=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII)


def send_file(request: Request, content: StoredContent, headers: Mapping[str, str], filename: str) -> Response:
    """The file, or the range of it that `request` asks for; `headers` must hold its ETag. Blocks: for threads.

    Raises Damaged if that shows at the first MiB. Later than that, the connection is cut before the announced
    length is reached, so that the client sees a failure too. HEAD tells what the file is, whatever its content has
    become: clients would take a failure there for a Hub that does not answer, try again for half a minute and then
    advise to check the network; the GET that follows tells them what is wrong.
    """
    all_headers = dict(headers) | _disposition(filename) | {"Accept-Ranges": "bytes"}
    asked = _asked(request, all_headers["ETag"])
    part = None if asked is None else _within(asked, content.size)
    if asked is not None and part is None:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{content.size}"})
    start, stop = part or (0, content.size)
    all_headers["Content-Length"] = str(stop - start)
    if part is not None:
        all_headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size}"
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=all_headers, media_type="application/octet-stream")
    return _Blocks(_begun(content.blocks(start, stop)), status, all_headers, content.name)


def _begun(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same blocks, the first one read already: what is wrong with it is said by status."""
    return chain([next(blocks, b"")], blocks)


class _Blocks(StreamingResponse):
    def __init__(self, blocks: Iterator[bytes], status: int, headers: Mapping[str, str], name: str) -> None:
        super().__init__(blocks, status, headers, media_type="application/octet-stream")
        self._blocks = blocks
        self._name = name

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            while block := await run_in_threadpool(next, self._blocks, b""):
                await send({"type": "http.response.body", "body": block, "more_body": True})
        except Damaged as error:
            # Returning without the last message makes the server cut the connection.
            _logger.error("%s What was sent of it was cut off.", error)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _disposition(filename: str) -> dict[str, str]:
    quoted = quote(filename, safe="")
    value = f'filename="{filename}"' if quoted == filename else f"filename*=utf-8''{quoted}"
    return {"Content-Disposition": f"attachment; {value}"}


def _asked(request: Request, etag: str) -> tuple[str, str] | None:
    """First and last byte of a single range as they are written; None where the whole file is wanted.

    Several ranges get the whole file, which RFC 9110 allows.
    """
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    if found is None or request.headers.get("if-range", etag) != etag:
        return None
    first, last = found.groups()
    if not (first or last) or (first and last and int(last) < int(first)):
        return None
    return first, last


def _within(asked: tuple[str, str], size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) in a file of `size` bytes; None where no byte of it is asked for."""
    first, last = asked
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    return (start, stop) if start < stop else None
