"""A proxy before the Hub that answers wrongly, late or not at all, as it is told; one request a connection."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

from tests.faults.rounds.script import HubCall, HubFault, Misbehaviour

#: (repository's name, call, "before" | "after"); runs in a thread, and the request waits for it
OnPoint = Callable[[str, HubCall, str], None]

_CALLS = (
    (HubCall.CREATE, "POST", re.compile(r"/api/repos/create$")),
    (HubCall.PREUPLOAD, "POST", re.compile(r"/api/models/[^/]+/(?P<name>[^/]+)/preupload/")),
    (HubCall.COMMIT, "POST", re.compile(r"/api/models/[^/]+/(?P<name>[^/]+)/commit/")),
    (HubCall.BATCH, "POST", re.compile(r"/[^/]+/(?P<name>[^/]+)\.git/info/lfs/objects/batch$")),
    (HubCall.UPLOAD, "PUT", re.compile(r"/api/uploads/[^/]+/(?P<name>[^/]+)/")),
    (HubCall.READ, "GET", re.compile(r"/(?!api/)[^/]+/(?P<name>[^/]+)/resolve/")),
    (HubCall.INFO, "GET", re.compile(r"/api/models/[^/]+/(?P<name>[^/]+)(/|$)")),
)
_PREFIX = "/hub"
_REASONS = {429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Request:
    """`head` ends with an empty line; `body` is as it was sent, in chunks or not."""

    head: bytes
    body: bytes

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def path(self) -> str:
        return self.head.split(b" ", 2)[1].decode().partition("?")[0]

    def header(self, name: str) -> str:
        found = re.search(rb"(?im)^%s:[ \t]*(.*?)\r$" % name.encode(), self.head)
        return found[1].decode() if found else ""

    def once(self) -> bytes:
        """As it is passed on: the connection ends with the answer."""
        return re.sub(rb"(?im)^connection:.*\r\n", b"", self.head)[:-2] + b"Connection: close\r\n\r\n"


@dataclass(frozen=True)
class Seen:
    """A request of a round. `status` is what the Hub answered, None if it was not asked; `fault` what was done."""

    at: float
    repository: str
    call: HubCall
    status: int | None
    fault: Misbehaviour | None


@dataclass
class Behaviour:
    """Of one round: what is still to be done to whom, and what was seen. `tokens` maps a token to its repository."""

    faults: dict[str, list[HubFault]] = field(default_factory=dict)
    on_point: OnPoint = lambda repository, call, moment: None
    seen: list[Seen] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)
    _counts: dict[tuple[str, HubCall], int] = field(default_factory=dict)

    def next_fault(self, repository: str, call: HubCall) -> HubFault | None:
        number = self._counts.get((repository, call), 0)
        self._counts[repository, call] = number + 1
        planned = self.faults.get(repository, [])
        meant = (fault for fault in planned if fault.call is call and 0 <= number - fault.nth < fault.times)
        return next(meant, None)


class HubProxy:
    """Passes /hub on to `upstream` (a port of this machine) and misbehaves as `behaviour` says."""

    def __init__(self, upstream: int, port: int) -> None:
        self.port = port
        self.behaviour = Behaviour()
        self.in_flight = 0
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hub proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        serving = asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**20)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.in_flight += 1
        try:
            request = await read_request(reader)
            if request is not None:
                await self._exchange(Exchange(request, writer, self._upstream, self.behaviour))
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of both ends is gone, which is what this is about
        finally:
            self.in_flight -= 1
            with suppress(OSError):
                writer.close()
                await writer.wait_closed()

    async def _exchange(self, exchange: Exchange) -> None:
        token = exchange.request.header("authorization").removeprefix("Bearer ")
        if token and exchange.repository:
            exchange.behaviour.tokens[token] = exchange.repository
        fault = exchange.behaviour.next_fault(exchange.repository, exchange.call)
        try:
            await exchange.point("before")
            if fault is None:
                await exchange.answer(await exchange.pass_on())
            else:
                await _MISBEHAVIOURS[fault.kind](exchange, fault)
        finally:
            exchange.note(fault)


@dataclass
class Exchange:
    request: Request
    writer: asyncio.StreamWriter
    upstream: int
    behaviour: Behaviour
    status: int | None = None

    def __post_init__(self) -> None:
        self.call, self.repository = call_of(self.request)

    async def point(self, moment: str) -> None:
        await asyncio.to_thread(self.behaviour.on_point, self.repository, self.call, moment)

    async def pass_on(self) -> bytes:
        """The Hub's whole answer, which nobody else knows yet."""
        async with self._hub() as (reader, writer):
            writer.write(self.request.once() + self.request.body)
            await writer.drain()
            answer = await reader.read(-1)
        self.status = int(answer.split(b" ", 2)[1]) if answer else None
        await self.point("after")
        return answer

    async def pass_half(self) -> None:
        async with self._hub() as (_, writer):
            writer.write(self.request.once() + self.request.body[: len(self.request.body) // 2])
            await writer.drain()

    def _hub(self) -> _Connection:
        return _Connection(self.upstream)

    async def answer(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def answer_status(self, status: int, *headers: str) -> None:
        body = json.dumps({"error": f"the Hub says {status}, as it was told to"}).encode()
        lines = [f"HTTP/1.1 {status} {_REASONS[status]}", f"Content-Length: {len(body)}", "Connection: close", *headers]
        await self.answer("\r\n".join([*lines, "Content-Type: application/json", "", ""]).encode() + body)

    def note(self, fault: HubFault | None) -> None:
        done = fault.kind if fault else None
        self.behaviour.seen.append(Seen(time.time(), self.repository, self.call, self.status, done))


class _Connection:
    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        return reader, self._writer

    async def __aexit__(self, *exception: object) -> None:
        self._writer.close()


async def _too_many(exchange: Exchange, fault: HubFault) -> None:
    await exchange.answer_status(429, "Retry-After: 1")


async def _error(exchange: Exchange, fault: HubFault) -> None:
    await exchange.answer_status(int(fault.kind))


async def _slow(exchange: Exchange, fault: HubFault) -> None:
    await asyncio.sleep(fault.seconds)
    await exchange.answer(await exchange.pass_on())


async def _cut_before(exchange: Exchange, fault: HubFault) -> None:
    return None


async def _cut_during(exchange: Exchange, fault: HubFault) -> None:
    await exchange.pass_half()


async def _answer_lost(exchange: Exchange, fault: HubFault) -> None:
    await exchange.pass_on()


async def _answer_half(exchange: Exchange, fault: HubFault) -> None:
    content = await exchange.pass_on()
    await exchange.answer(content[: len(content) - len(content.partition(b"\r\n\r\n")[2]) // 2 - 1])


async def _answer_late(exchange: Exchange, fault: HubFault) -> None:
    content = await exchange.pass_on()
    await asyncio.sleep(fault.seconds)
    await exchange.answer(content)


async def _passed_late(exchange: Exchange, fault: HubFault) -> None:
    """What somebody on the way held back while the sender gave up."""
    exchange.writer.close()
    await asyncio.sleep(fault.seconds)
    await exchange.pass_on()


_MISBEHAVIOURS: dict[Misbehaviour, Callable[[Exchange, HubFault], Awaitable[None]]] = {
    Misbehaviour.TOO_MANY: _too_many,
    Misbehaviour.ERROR: _error,
    Misbehaviour.UNAVAILABLE: _error,
    Misbehaviour.SLOW: _slow,
    Misbehaviour.CUT_BEFORE: _cut_before,
    Misbehaviour.CUT_DURING: _cut_during,
    Misbehaviour.ANSWER_LOST: _answer_lost,
    Misbehaviour.ANSWER_HALF: _answer_half,
    Misbehaviour.ANSWER_LATE: _answer_late,
    Misbehaviour.PASSED_LATE: _passed_late,
}


def call_of(request: Request) -> tuple[HubCall, str]:
    """What a request is for, and the name (without namespace) of its repository; empty if it is for none."""
    path = request.path.removeprefix(_PREFIX)
    for call, method, pattern in _CALLS:
        found = pattern.match(path) if request.method == method else None
        if found is None:
            continue
        if call is HubCall.CREATE:
            return call, str(json.loads(request.body)["name"]).rpartition("/")[2]
        return call, found["name"]
    return HubCall.OTHER, ""


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The whole request; None if the other end closed before it began one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    bare = Request(head, b"")
    if "chunked" in bare.header("transfer-encoding").lower():
        return Request(head, b"".join([chunk async for chunk in _chunks(reader)]))
    return Request(head, await reader.readexactly(int(bare.header("content-length") or 0)))


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        size = await reader.readuntil(b"\r\n")
        yield size + await reader.readexactly(int(size, 16) + 2)
        if int(size, 16) == 0:
            return


@contextmanager
def misbehaving(proxy: HubProxy, behaviour: Behaviour) -> Iterator[None]:
    """The Hub is as `behaviour` says inside, and well again afterwards."""
    proxy.behaviour = behaviour
    try:
        yield
    finally:
        proxy.behaviour = Behaviour()
