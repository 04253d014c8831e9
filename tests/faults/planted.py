"""Secrets that are planted in an installation, and everywhere that one of them may show up."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psutil
import redis
from sqlalchemy import MetaData, select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from publisher.store.database import Database


@dataclass
class Sightings:
    """Of `planted` (name → secret): where each was seen, as it is, or as an address or a header would have it."""

    planted: Mapping[str, str]
    seen: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def look(self, where: str, content: str | bytes) -> None:
        data = content.encode() if isinstance(content, str) else content
        for name, secret in self.planted.items():
            if any(form in data for form in _forms(secret)):
                self.seen[name].add(where)

    def look_into_files(self, folder: Path) -> int:
        """How many there were."""
        files = [file for file in folder.rglob("*") if file.is_file()]
        for file in files:
            self.look(str(file.relative_to(folder)), file.read_bytes())
        return len(files)

    def look_into_database(self, database: Database) -> int:
        """Every column of every table, whatever tables there are; the number of rows."""
        metadata, count = MetaData(), 0
        with database.engine.connect() as connection:
            metadata.reflect(connection)
            for table in metadata.sorted_tables:
                for row in connection.execute(select(table)):
                    count += 1
                    self.look(f"table {table.name}", json.dumps(list(row), default=str))
        return count

    def look_into_redis(self, client: redis.Redis) -> int:
        """Names and values of all keys; their number."""
        names = list(client.scan_iter())
        for name in names:
            self.look(f"redis key {name!r}", name)
            self.look(f"redis value of {name!r}", b"\n".join(_values(client, name)))
        return len(names)

    def look_at_processes(self, processes: Iterable[psutil.Process]) -> int:
        """Command lines of these and all that they started, and what their environment was when they were."""
        family = [member for process in processes for member in _family(process)]
        for member in family:
            try:
                self.look("command line", "\n".join(member.cmdline()))
            except psutil.Error:  # it has just ended
                continue
        return len(family)


def _forms(secret: str) -> list[bytes]:
    tail = [base64.b64encode(prefix + secret.encode())[4:-4] for prefix in (b"", b"\0", b"\0\0")]
    return [secret.encode(), quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode(), *tail]


def _values(client: redis.Redis, name: bytes) -> list[bytes]:
    match client.type(name):
        case b"list":
            return list(client.lrange(name, 0, -1))
        case b"set":
            return list(client.smembers(name))
        case b"hash":
            return [part for pair in client.hgetall(name).items() for part in pair]
        case b"zset":
            return list(client.zrange(name, 0, -1))
        case b"string":
            return [client.get(name) or b""]
        case b"none":
            return []
        case other:
            raise AssertionError(f"nobody looks into a {other!r} of Redis")


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


@dataclass
class TalkativeHub:
    """Passes requests on to a Hub and fails as `faults` say, one after the other: (part of "GET /path", what). `what`:
    a status, answered with the token that was sent; "junk", the token and no JSON; "lost", the Hub's answer is cut.
    """

    app: ASGIApp
    faults: list[tuple[str, int | str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        said = dict(scope.get("headers", []))
        token = said.get(b"authorization", b"").decode().removeprefix("Bearer ")
        self.tokens.add(token)
        path = f"{scope.get('method')} {scope.get('path')}"
        what = self._next(path)
        if what is None:
            await self.app(scope, receive, send)
        elif what == "lost":
            await self.app(scope, receive, _nowhere)
            await _answer(send, 200, b"{", length=100)
        elif what == "junk":
            await _answer(send, 200, f"what is {token}?".encode())
        else:
            told = {"error": f"the Hub does not like Authorization: Bearer {token}"}
            await _answer(send, int(what), json.dumps(told).encode())

    def _next(self, path: str) -> int | str | None:
        """The first fault alone: the order of a job's calls is the order of the faults."""
        if not self.faults or self.faults[0][0] not in path:
            return None
        return self.faults.pop(0)[1]


async def _nowhere(message: Message) -> None:
    return None


async def _answer(send: Send, status: int, body: bytes, length: int | None = None) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(length or len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
