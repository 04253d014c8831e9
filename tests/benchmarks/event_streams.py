"""Watchers of one job on one API process: how late an event reaches the last of them, and what it asks of the database.

    python -m tests.benchmarks.event_streams [--watchers 1000] [--events 20] [--database URL]

The API runs in this process, over SQLite below a temporary folder or the database that is named; the watchers are in
one other, so their work counts, too. An event is written every half second and carries when; statements are counted
from the first of them to the last, for all watchers together, and once with two watchers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import event

from publisher.jobs import events
from publisher.jobs.events import NewEvent
from publisher.store import keys
from publisher.store.database import Database
from publisher.store.states import EventKind
from tests.api.conftest import serve_api
from tests.jobs import rows

PAUSE = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--database")
    parser.add_argument("--watch", nargs=2, help="used by itself: a URL and a key")
    options = parser.parse_args()
    if options.watch:
        asyncio.run(watch(*options.watch, options.watchers, options.events))
        return
    with tempfile.TemporaryDirectory() as folder:
        changes = {"database_url": options.database} if options.database else {}
        with serve_api(Path(folder), **changes) as api:
            for watchers in (2, options.watchers):
                print(measure(api.url, api.database, watchers, options.events), flush=True)


def measure(url: str, database: Database, watchers: int, events_: int) -> str:
    variant = rows.add_variant(database)
    lease = rows.claim(database, rows.add_job(database, variant), seconds=3600)
    key = keys.new_key()
    with database.write() as session:
        keys.add_key(session, variant.tenant_id, "bench", key)
    address = f"{url}/v1/jobs/{lease.job_id}/events"
    module = [sys.executable, "-m", "tests.benchmarks.event_streams", "--watch", address, key]
    command = [*module, "--watchers", str(watchers), "--events", str(events_)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "all listen\n"
        with counted(database) as sent:
            start = time.monotonic()
            for _ in range(events_):
                time.sleep(PAUSE)
                with database.write() as session:
                    told = [NewEvent(EventKind.LOG, {"message": "x"})]
                    events.append(session, lease.job_id, lease.token, told)
            late = json.loads(process.stdout.readline())
            took = time.monotonic() - start
        # the writer's own, which are not the readers' cost
        asked = [statement for statement in sent if statement.startswith("SELECT")]
        of_events = [statement for statement in asked if "FROM job_events" in statement]
    return (
        f"{watchers:5} watchers: the last of them hears an event after {median(late):.2f} s (worst {max(late):.2f}); "
        f"{len(of_events) / events_:.1f} SELECTs of events an event, {len(asked) / took:.1f} in all a second"
    )


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: object) -> None:
        sent.append(statement.lstrip("( "))

    event.listen(database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(database.engine, "before_cursor_execute", note)


async def watch(address: str, key: str, watchers: int, events_: int) -> None:
    """Print when all listen, then for each event how many seconds after it the last of them had it."""
    arrived: list[list[float]] = [[] for _ in range(events_)]
    listening = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(watchers):
            tasks.create_task(_listen(address, key, arrived, listening))
        for _ in range(watchers):
            await listening.acquire()
        # a round later all of them are known to have caught up
        await asyncio.sleep(2)
        print("all listen", flush=True)
    assert all(len(one) == watchers for one in arrived)
    print(json.dumps([max(one) for one in arrived]), flush=True)


async def _listen(address: str, key: str, arrived: list[list[float]], listening: asyncio.Semaphore) -> None:
    host, _, path = address.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    # queued and running are known: the first event that comes is the third
    request = f"GET /{path}?after=2 HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n"
    writer.write(request.encode())
    await reader.readuntil(b"retry: ")
    listening.release()
    for one in arrived:
        await reader.readuntil(b"event: log")
        data = await reader.readuntil(b"}")
        one.append(time.time() - json.loads(data[data.index(b"{") :])["at"])
    writer.close()


if __name__ == "__main__":
    main()
