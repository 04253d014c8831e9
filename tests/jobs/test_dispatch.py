"""A broker that is down is no error: jobs wait in the database until it is back."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

from publisher.jobs.broker import QUEUE
from publisher.jobs.dispatch import AT_ONCE, Dispatcher
from publisher.jobs.reaper import Reaper
from publisher.settings import Settings
from publisher.store.database import Database
from tests import servers
from tests.jobs import rows


def messages(settings: Settings) -> int:
    return sum(rows.waiting_messages(settings).values())


def test_job_created_while_the_broker_is_down_is_sent_when_it_is_back(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    port = servers.free_port()
    down = settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{port}/0"})
    job_id = rows.add_job(database)
    dispatcher, reaper = Dispatcher(database, down), Reaper(database, down)
    started = time.monotonic()
    assert not dispatcher.send(job_id)
    assert not dispatcher.is_reachable()
    assert time.monotonic() - started < 10
    reaper.run_once()
    assert rows.load(database, job_id).dispatched_at is None
    with servers.redis_server(tmp_path, port):
        reaper.run_once()
        assert messages(down) == 1
        assert dispatcher.is_reachable()


def test_broker_that_goes_away_after_use_is_no_error_either(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    port = servers.free_port()
    settings = settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{port}/0"})
    dispatcher = Dispatcher(database, settings)
    with servers.redis_server(tmp_path, port):
        assert dispatcher.send(rows.add_job(database))
    assert not dispatcher.send(rows.add_job(database))
    assert not dispatcher.is_reachable()
    dispatcher.forget("a worker of before")
    with servers.redis_server(tmp_path, port):
        assert dispatcher.send(rows.add_job(database))
        assert messages(settings) == 1


def test_a_broker_that_hangs_holds_up_few_threads_and_not_for_long(database: Database, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never says a word
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        dispatcher = Dispatcher(database, settings.model_copy(update={"broker_url": url}))
        sent, most = list[bool](), threading.Semaphore(0)

        def publish() -> None:
            sent.append(dispatcher.publish("job", QUEUE))
            most.release()

        for _ in range(40):
            threading.Thread(target=publish, daemon=True).start()
        for _ in range(40):
            assert most.acquire(timeout=30), f"{len(sent)} of 40 came back"
        assert sent == [False] * 40
        assert connections(silent) <= 2 * (AT_ONCE + 1)  # each tries twice
        assert not dispatcher.is_reachable()


def connections(listener: socket.socket) -> int:
    """How many were made so far."""
    listener.setblocking(False)
    made = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return made
        made += 1
