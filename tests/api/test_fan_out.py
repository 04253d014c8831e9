"""One reader for many listeners: nothing lost or repeated at any speed, and what it costs does not grow with them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from itertools import count
from random import Random
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from publisher.api import fan_out as module
from publisher.api.authentication import Caller
from publisher.api.event_sources import JOB, TENANT, Source
from publisher.api.event_streams import EventStream
from publisher.api.fan_out import FanOut
from publisher.client.events import Event, parse_events
from publisher.jobs import events, service, transitions
from publisher.jobs.events import NewEvent
from publisher.jobs.leases import Lease
from publisher.store import keys
from publisher.store.database import Database
from publisher.store.deletion import delete_job
from publisher.store.models import ApiKey, Job, Variant
from publisher.store.states import EventKind
from tests.jobs import rows

CALLER = Caller("ten", "t", "key")


class Watched:
    """A running job of a tenant, and its fan-out, whose rounds the test makes."""

    def __init__(self, database: Database) -> None:
        self.database = database
        variant = rows.add_variant(database)
        self.tenant_id = variant.tenant_id
        self.lease = rows.claim(database, rows.add_job(database, variant))
        with database.write() as session:
            key = keys.add_key(session, self.tenant_id, "k", keys.new_key())
        self.caller = Caller(self.tenant_id, "t", key.id)
        self.fan_out = FanOut(database, 500)

    def say(self, *texts: str, lease: Lease | None = None) -> None:
        held = lease or self.lease
        with self.database.write() as session:
            told = [NewEvent(EventKind.LOG, {"message": text}) for text in texts]
            events.append(session, held.job_id, held.token, told)

    def finish(self) -> None:
        with self.database.write() as session:
            transitions.succeed(session, self.lease, {}, {}, [])

    async def caught_up(self, listeners: int) -> None:
        """Until so many live on memory, and none is in the database."""

        def is_so() -> bool:
            here = self.fan_out.listeners
            return len(here) == listeners and all(one.feed.since(one.number) == [] for one in here)

        await until(is_so, self.fan_out.round)
        await until(lambda: not self.fan_out._threads.borrowed_tokens, lambda: asyncio.sleep(0.01))

    def listen(self, number: int = 0, source: Source = JOB) -> AsyncGenerator[bytes]:
        id = self.lease.job_id if source is JOB else self.tenant_id
        return self.fan_out.follow(self.caller, source, id, number)


@pytest.fixture
def watched(database: Database) -> Watched:
    return Watched(database)


@contextmanager
def statements(database: Database, word: str = "SELECT") -> Iterator[list[str]]:
    """What is sent to the database meanwhile and has this word."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: object) -> None:
        if word in statement:
            sent.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(database.engine, "before_cursor_execute", note)


def told(chunks: list[bytes]) -> list[Event]:
    return list(parse_events(iter(b"".join(chunks).decode().split("\n"))))


async def collect(stream: AsyncIterator[bytes], into: list[bytes], pause: Callable[[], float] = lambda: 0) -> None:
    async for chunk in stream:
        into.append(chunk)
        await asyncio.sleep(pause())


async def until(condition: Callable[[], bool], step: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await step()
            await asyncio.sleep(0)


def numbers(chunks: list[bytes]) -> list[int]:
    return [event.id for event in told(chunks)]


def test_what_an_event_costs_does_not_grow_with_its_listeners(watched: Watched) -> None:
    async def cost(listeners: int) -> int:
        heard: list[list[bytes]] = [[] for _ in range(listeners)]
        async with asyncio.TaskGroup() as tasks:
            for chunks in heard:
                tasks.create_task(collect(watched.listen(), chunks))
            await watched.caught_up(listeners)
            before = len(numbers(heard[0]))
            with statements(watched.database) as sent:
                for text in "abc":
                    watched.say(text)
                    await watched.fan_out.round()
                await until(
                    lambda: all(len(numbers(chunks)) == before + 3 for chunks in heard), lambda: asyncio.sleep(0)
                )
            watched.fan_out.end_streams()
        assert len({tuple(numbers(chunks)) for chunks in heard}) == 1
        return len(sent)

    few, many = asyncio.run(cost(2)), asyncio.run(cost(60))
    assert many <= few + 1  # whose keys still count is asked by the clock
    assert few <= 3 * 2 + 1


def test_jobs_and_tenants_are_read_together(database: Database) -> None:
    """As many statements for the events of twenty jobs as of one."""
    watched = Watched(database)
    variants = [rows.add_variant(database) for _ in range(20)]
    held = [rows.claim(database, rows.add_job(database, variant)) for variant in variants]

    async def run() -> list[str]:
        heard: dict[str, list[bytes]] = {lease.job_id: [] for lease in held}
        async with asyncio.TaskGroup() as tasks:
            for lease in held:
                stream = watched.fan_out.follow(watched.caller, JOB, lease.job_id, 2)
                tasks.create_task(collect(stream, heard[lease.job_id]))
            await watched.caught_up(len(held))
            for lease in held:
                watched.say(lease.job_id, "twice", lease=lease)
            with statements(database, "job_events") as sent:
                await until(lambda: all(len(numbers(one)) == 2 for one in heard.values()), watched.fan_out.round)
            watched.fan_out.end_streams()
        for job_id, chunks in heard.items():
            assert [event.data["message"] for event in told(chunks)] == [job_id, "twice"]
        return sent

    assert len(asyncio.run(run())) == 1


def test_listeners_that_vanish_cost_nothing(watched: Watched) -> None:
    """One that has not read for a while, as its connection breaks."""
    sending = asyncio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            sending.set()
            await asyncio.Event().wait()

    async def receive() -> Any:
        await sending.wait()
        return {"type": "http.disconnect"}

    async def run() -> list[str]:
        response = EventStream(watched.listen())
        task = asyncio.create_task(response({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send))
        await sending.wait()
        assert len(watched.fan_out.listeners) == 1
        await task
        with statements(watched.database) as sent:
            await watched.fan_out.round()
        return sent

    assert asyncio.run(run()) == []


@pytest.mark.parametrize("source", [JOB, TENANT])
@pytest.mark.parametrize("kept", [200, module.KEPT_BYTES])
def test_nothing_is_lost_or_repeated_at_any_speed_and_from_any_start(
    watched: Watched, source: Source, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With little memory the slow ones fall out of it again and again."""
    monkeypatch.setattr(module, "KEPT_BYTES", kept)
    monkeypatch.setattr(module, "BATCH", 7)
    random = Random(1)
    starts = [0, 0, 1, 2, 30, 117]
    watched.say(*map(str, range(120)))

    def write() -> None:
        for number in range(60):
            watched.say(*map(str, range(1 + number % 5)))
        watched.finish()

    async def run() -> list[list[bytes]]:
        heard: list[list[bytes]] = [[] for _ in starts]
        writer = threading.Thread(target=write)
        paces = [lambda: 0.0, lambda: random.random() / 50, *[lambda: random.random() / 200] * 4]
        async with asyncio.TaskGroup() as tasks:
            for start, chunks, pace in zip(starts, heard, paces, strict=True):
                tasks.create_task(collect(watched.listen(start, source), chunks, pace))
            writer.start()
            await until(lambda: not writer.is_alive(), watched.fan_out.round)
            last = len(rows.read_events(watched.database, watched.lease.job_id))
            await until(lambda: all(numbers(chunks)[-1:] == [last] for chunks in heard), watched.fan_out.round)
            watched.fan_out.end_streams()
        return heard

    heard = asyncio.run(run())
    expected = rows.read_events(watched.database, watched.lease.job_id)
    for start, chunks in zip(starts, heard, strict=True):
        assert numbers(chunks) == list(range(start + 1, len(expected) + 1))
        assert [event.kind for event in told(chunks)] == [event.kind for event in expected[start:]]


def test_streams_end_with_their_job_and_not_with_others(watched: Watched) -> None:
    async def run() -> list[bytes]:
        heard: list[bytes] = []
        task = asyncio.create_task(collect(watched.listen(), heard))
        everything: list[bytes] = []
        of_all = asyncio.create_task(collect(watched.listen(source=TENANT), everything))
        await until(lambda: len(numbers(heard)) == 2, watched.fan_out.round)
        watched.finish()
        await until(task.done, watched.fan_out.round)
        assert not of_all.done()
        watched.fan_out.end_streams()
        await of_all
        assert [event.data["job_id"] for event in told(everything)] == [watched.lease.job_id] * 3
        assert [event.data["seq"] for event in told(everything)] == [1, 2, 3]
        return heard

    assert [event.data["state"] for event in told(asyncio.run(run()))] == ["queued", "running", "succeeded"]


def test_a_deleted_job_ends_its_stream_and_leaves_a_hole_in_the_tenants(watched: Watched) -> None:
    variant_id = rows.load(watched.database, watched.lease.job_id).variant_id

    async def run() -> list[int]:
        task = asyncio.create_task(collect(watched.listen(), []))
        await watched.caught_up(1)
        watched.say("the last that there is")
        with watched.database.write() as session:
            delete_job(session, session.get_one(Job, watched.lease.job_id))
        await until(task.done, watched.fan_out.round)
        heard: list[bytes] = []
        of_all = asyncio.create_task(collect(watched.listen(source=TENANT), heard))
        # its numbers are passed over, not asked for again and again
        await watched.caught_up(1)
        with statements(watched.database, "job_events") as sent:
            await watched.fan_out.round()
        assert sent == []
        with watched.database.write() as session:
            service.enqueue(session, session.get_one(Variant, variant_id))
        await until(lambda: bool(told(heard)), watched.fan_out.round)
        watched.fan_out.end_streams()
        await of_all
        return numbers(heard)

    assert asyncio.run(run()) == [4]


def test_a_revoked_key_ends_its_streams_and_no_others(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACCESS_INTERVAL", -1)
    with watched.database.write() as session:
        other = Caller(watched.tenant_id, "t", keys.add_key(session, watched.tenant_id, "other", keys.new_key()).id)

    async def run() -> None:
        ends = [asyncio.create_task(collect(watched.listen(source=source), [])) for source in (JOB, TENANT)]
        stays = asyncio.create_task(collect(watched.fan_out.follow(other, TENANT, watched.tenant_id, 0), []))
        await watched.fan_out.round()
        await watched.fan_out.round()
        assert not any(task.done() for task in (*ends, stays))
        with watched.database.write() as session:
            keys.revoke(session, session.get_one(ApiKey, watched.caller.key_id))
        await until(lambda: all(task.done() for task in ends), watched.fan_out.round)
        assert not stays.done()
        watched.fan_out.end_streams()
        await stays

    asyncio.run(run())


def test_listeners_outlast_a_database_that_is_away(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = count()

    def read(self: Database) -> Any:
        if next(fails) < 5:
            raise OperationalError("SELECT", {}, Exception("away"))
        return real(self)

    real = Database.read
    monkeypatch.setattr(module, "INTERVAL", 0.01)

    async def run() -> list[bytes]:
        heard: list[bytes] = []
        task = asyncio.create_task(collect(watched.listen(), heard))
        await until(lambda: len(numbers(heard)) == 2, watched.fan_out.round)
        monkeypatch.setattr(Database, "read", read)
        watched.fan_out.start()
        behind: list[bytes] = []
        late = asyncio.create_task(collect(watched.listen(), behind))
        watched.say("after")
        await until(lambda: numbers(heard) == numbers(behind) == [1, 2, 3], lambda: asyncio.sleep(0.01))
        await watched.fan_out.stop()
        await asyncio.gather(task, late)
        return heard

    assert told(asyncio.run(run()))[-1].data["message"] == "after"
    assert next(fails) > 5


def test_stream_of_which_no_event_is_wanted_says_that_it_is_there(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much happens: proxies see silence, and who comes again would read all of it once more."""

    async def something_happens(listener: object, seconds: float) -> bool:
        await asyncio.sleep(0)
        return True

    monkeypatch.setattr(module.Listener, "wait", something_happens)
    monkeypatch.setattr(module, "KEEP_ALIVE", 0.0)
    watched.say("a", "b")

    async def first_chunks() -> list[bytes]:
        stream = watched.fan_out.follow(watched.caller, JOB, watched.lease.job_id, 0, lambda entry: False)
        async with asyncio.timeout(5):
            return [await anext(stream), await anext(stream)]

    assert asyncio.run(first_chunks())[1] == b": still here\nid: 4\n\n"
