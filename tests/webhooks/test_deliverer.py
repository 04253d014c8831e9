"""Deliveries arrive at least once, under one id, each webhook at its own pace, whoever dies on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from standardwebhooks import Webhook as Verifier

from publisher.jobs.suspension import resume_tenant
from publisher.settings import Settings
from publisher.store import migrate, tenants, webhook_deliveries, webhooks
from publisher.store.database import Database
from publisher.store.models import Tenant, Webhook, WebhookDelivery, WebhookEvent
from publisher.store.states import DeliveryState
from publisher.webhooks.deliverer import LEASE_MARGIN, judged
from publisher.webhooks.retries import Patience
from publisher.webhooks.sender import Answer
from tests.jobs.rows import add_job, add_variant
from tests.servers import wait_until
from tests.webhooks import rows
from tests.webhooks.receiver import Receiver, answering, first, receiving

DAY = 86_400.0
PENDING, DELIVERED, FAILED = DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.FAILED


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return rows.fast(tmp_path)


def hooked(database: Database, settings: Settings, url: str) -> Webhook:
    return rows.add_webhook(database, settings, add_variant(database).tenant_id, url)[0]


def test_what_happens_to_a_job_arrives_signed_and_once(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    variant = add_variant(database)
    hook, secret = rows.add_webhook(database, settings, variant.tenant_id, receiver.url)
    with rows.delivering(database, settings):
        job_id = add_job(database, variant)
        (got,) = receiver.has(1)
        (row,) = rows.deliveries_of(database, hook)
        done = rows.settled(database, row.id, DELIVERED)
    told = Verifier(secret).verify(got.body, got.headers)
    assert (told["type"], told["data"]["job_id"]) == ("job.queued", job_id)
    assert got.message_id == row.event_id
    assert (done.attempts, done.status, done.error) == (1, 204, None)
    assert done.delivered_at is not None
    assert len(receiver.received) == 1


def test_what_fails_is_tried_again_under_the_same_id_until_it_is_taken(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    receiver.manner = first(2, answering(503), answering(200))
    hook = hooked(database, settings, receiver.url)
    (row,) = rows.add_deliveries(database, hook)
    with rows.delivering(database, settings):
        done = rows.settled(database, row.id, DELIVERED)
    assert done.attempts == 3
    assert set(receiver.ids()) == {row.event_id}
    assert len(receiver.received) == 3
    assert rows.webhook(database, hook.id).failing_since is None


def test_a_slow_receiver_holds_back_no_other(database: Database, tmp_path: Path, receiver: Receiver) -> None:
    settings = rows.fast(tmp_path, webhook_concurrency_per_webhook=2, webhook_timeout_seconds=20)
    with receiving(closed=True) as slow:
        held, other = (hooked(database, settings, each.url) for each in (slow, receiver))
        rows.add_deliveries(database, held, 20)
        rows.add_deliveries(database, other, 20)
        with rows.delivering(database, settings):
            receiver.has(20)
            wait_until(lambda: rows.count_in(database, DELIVERED) == 20, "deliveries to the other receiver")
            assert len(slow.received) == 2
            slow.open.set()
            wait_until(lambda: rows.count_in(database, DELIVERED) == 40, "all deliveries")


def test_410_disables_a_webhook_and_enabling_goes_on_with_what_waits(
    database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    settings = rows.fast(tmp_path, webhook_concurrency_per_webhook=1)
    receiver.manner = first(1, answering(410), answering(200))
    hook = hooked(database, settings, receiver.url)
    gone, waits = rows.add_deliveries(database, hook, 2)
    with rows.delivering(database, settings):
        assert rows.settled(database, gone.id, FAILED).status == 410
        disabled = rows.webhook(database, hook.id)
        assert disabled.disabled_at is not None
        assert "410 Gone" in str(disabled.disabled_reason)
        assert (rows.delivery(database, waits.id).state, len(receiver.received)) == (PENDING, 1)
        with database.write() as session:
            webhooks.enable(session, session.get_one(Webhook, hook.id))
        rows.settled(database, waits.id, DELIVERED)
    assert rows.webhook(database, hook.id).disabled_at is None


def test_a_suspended_tenants_deliveries_wait_and_have_all_their_patience_afterwards(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    hook, other = hooked(database, settings, receiver.url), hooked(database, settings, receiver.url)
    with database.write() as session:
        tenants.suspend(session, session.get_one(Tenant, hook.tenant_id))
    (waits,), (comes,) = rows.add_deliveries(database, hook), rows.add_deliveries(database, other)
    receiver.manner = first(1, answering(204), answering(503))
    rows.let_pass(database, 30 * DAY)
    with rows.delivering(database, settings):
        rows.settled(database, comes.id, DELIVERED)
        with database.read() as session:
            assert webhook_deliveries.longest_due(session) == 0
        assert rows.delivery(database, waits.id).attempts == 0
        with database.write() as session:
            resume_tenant(session, session.get_one(Tenant, hook.tenant_id))
        rows.tried(database, waits.id)
    assert rows.delivery(database, waits.id).state is not FAILED


def test_a_delivery_is_given_up_after_days_and_then_a_silent_webhook_is_disabled(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    receiver.manner = answering(500)
    hook = hooked(database, settings, receiver.url)
    (early,) = rows.add_deliveries(database, hook)
    with rows.delivering(database, settings):
        rows.tried(database, early.id)
    assert rows.webhook(database, hook.id).failing_since is not None
    rows.let_pass(database, 4 * DAY)
    with rows.delivering(database, settings):
        rows.settled(database, early.id, FAILED)
    assert rows.webhook(database, hook.id).disabled_at is None
    (late,) = rows.add_deliveries(database, hook)
    rows.let_pass(database, 4 * DAY)
    with rows.delivering(database, settings):
        rows.settled(database, late.id, FAILED)
    assert "for days" in str(rows.webhook(database, hook.id).disabled_reason)


def test_one_success_makes_a_webhook_healthy(database: Database, settings: Settings, receiver: Receiver) -> None:
    receiver.manner = answering(500)
    hook = hooked(database, settings, receiver.url)
    (row,) = rows.add_deliveries(database, hook)
    with rows.delivering(database, settings):
        rows.tried(database, row.id)
        assert rows.webhook(database, hook.id).failing_since is not None
        receiver.manner = answering(200)
        rows.settled(database, row.id, DELIVERED)
    assert rows.webhook(database, hook.id).failing_since is None


def test_a_delivery_asked_for_again_comes_with_its_id_and_all_its_patience(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    hook = hooked(database, settings, receiver.url)
    (row,) = rows.add_deliveries(database, hook)
    with rows.delivering(database, settings):
        rows.settled(database, row.id, DELIVERED)
        rows.let_pass(database, 10 * DAY)
        receiver.manner = first(2, answering(500), answering(200))
        with database.write() as session:
            webhooks.deliver_again(session, hook, row.id)
        receiver.has(3)
        rows.settled(database, row.id, DELIVERED)
    assert receiver.ids() == [row.event_id] * 3


def test_two_deliverers_share_and_nothing_comes_twice(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    hook = hooked(database, settings, receiver.url)
    made = rows.add_deliveries(database, hook, 60)
    with rows.delivering(database, settings), rows.delivering(database, settings):
        wait_until(lambda: rows.count_in(database, DELIVERED) == 60, "60 deliveries", 60)
    assert sorted(receiver.ids()) == sorted(row.event_id for row in made)


def test_what_a_dead_process_had_taken_is_delivered_by_another(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    hook = hooked(database, settings, receiver.url)
    (row,) = rows.add_deliveries(database, hook)
    seconds = settings.webhook_timeout_seconds + LEASE_MARGIN
    with database.write() as session:  # and never says how it ended
        (dead,) = webhook_deliveries.claim(session, {hook.id: 4}, 4, seconds)
    with database.write() as session:
        assert webhook_deliveries.claim(session, {hook.id: 4}, 4, seconds) == []
    rows.let_pass(database, seconds)
    with rows.delivering(database, settings):
        done = rows.settled(database, row.id, DELIVERED)
    assert done.attempts == 2
    late = judged(dead, Answer(500, "late", 1.0), Patience.of(settings))
    with database.write() as session:
        webhook_deliveries.settle(session, [late], 1.0)
    assert rows.delivery(database, row.id).state is DELIVERED


def test_a_try_that_was_overtaken_changes_nothing(database: Database, settings: Settings) -> None:
    hook = hooked(database, settings, "http://127.0.0.1:9/")
    rows.add_deliveries(database, hook)
    with database.write() as session:
        (early,) = webhook_deliveries.claim(session, {hook.id: 1}, 1, 0.0)
    with database.write() as session:
        (late,) = webhook_deliveries.claim(session, {hook.id: 1}, 1, 60.0)
    with database.write() as session:
        webhook_deliveries.settle(session, [judged(early, Answer(500, "x", 0.1), Patience.of(settings))], DAY)
    row = rows.delivery(database, early.id)
    assert (row.attempts, row.error, row.tried_at) == (2, None, None)
    assert late.attempts == 2


def test_a_process_that_ends_gives_back_what_is_under_way(database: Database, tmp_path: Path) -> None:
    settings = rows.fast(tmp_path, webhook_timeout_seconds=60)
    with receiving(closed=True) as slow:
        hook = hooked(database, settings, slow.url)
        (row,) = rows.add_deliveries(database, hook)
        with rows.delivering(database, settings):
            slow.has(1)
            begun = time.monotonic()
        assert time.monotonic() - begun < 10
    given_back = rows.delivery(database, row.id)
    assert (given_back.state, given_back.attempts) == (PENDING, 0)
    with database.read() as session:
        assert webhook_deliveries.due_webhooks(session, [], 10) == [hook.id]


def test_history_goes_after_its_time(database: Database, settings: Settings) -> None:
    hook = hooked(database, settings, "http://127.0.0.1:9/")
    (kept,) = rows.add_deliveries(database, hook)
    with database.write() as session:
        event = WebhookEvent(id=f"evt_{0:022x}", tenant_id=hook.tenant_id, type="job.queued", at=0.0, data={})
        session.add(event)
        session.flush()
        times = {"due_at": 0.0, "asked_at": 0.0, "created_at": 0.0}
        old = WebhookDelivery(
            id=f"dlv_{0:022x}", tenant_id=hook.tenant_id, webhook_id=hook.id, event_id=event.id, **times
        )
        session.add(old)
    with database.write() as session:
        assert webhook_deliveries.forget_old(session, 30 * DAY) == 2
    assert [row.id for row in rows.deliveries_of(database, hook)] == [kept.id]
    assert [event.id for event in rows.events_of(database, hook.tenant_id)] == [kept.event_id]


def test_deliveries_wait_for_a_database_that_is_away(
    postgresql_url: str, settings: Settings, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(postgresql_url)  # without tables, which is as good as away
    with rows.delivering(database, settings):
        wait_until(lambda: "webhooks wait" in caplog.text, "a warning")
        migrate.upgrade(postgresql_url)
        (row,) = rows.add_deliveries(database, hooked(database, settings, receiver.url))
        rows.settled(database, row.id, DELIVERED)
    database.close()


#: deliveries that a process has under way to one webhook
UNDER_WAY = 16
SCRIPT = """
import sys, time
from publisher.store.database import Database
from publisher.webhooks.deliverer import Deliverer
from pathlib import Path
from tests.webhooks.rows import fast
database = Database(sys.argv[1])
settings = fast(Path(sys.argv[2]), webhook_concurrency_per_webhook=int(sys.argv[3]), webhook_timeout_seconds=30)
Deliverer(database, settings).start()
print("up", flush=True)
time.sleep(600)
"""


def started(database_url: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, database_url, str(folder), str(UNDER_WAY)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def lose_nothing(url: str, folder: Path, count: int, kill_at: int, *, wait: bool = True) -> str:
    """`count` deliveries over two processes, of which one is killed when the receiver has `kill_at`; the figures.
    Without `wait` what the killed one had taken is due at once."""
    database, settings = Database(url), rows.fast(folder)
    settings.secret_bytes()
    with receiving(closed=True) as receiver:
        receiver.free = kill_at
        hook = hooked(database, settings, receiver.url)
        made = {row.event_id for row in rows.add_deliveries(database, hook, count)}
        begun = time.monotonic()
        killed, other = (started(url, folder) for _ in range(2))
        try:
            # what comes then is not answered: each has taken as much of it as it may
            wait_until(lambda: len(receiver.received) >= kill_at + 2 * UNDER_WAY, "the moment to kill", 600)
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            receiver.open.set()
            if not wait:
                rows.let_pass(database, 30 + LEASE_MARGIN)
            wait_until(lambda: rows.count_in(database, DELIVERED) == count, f"{count} deliveries", 900)
        finally:
            for process in (killed, other):
                process.kill()
                process.wait()
        seconds = time.monotonic() - begun
        ids = receiver.ids()
    database.close()
    assert set(ids) == made
    twice = len(ids) - count
    assert twice >= UNDER_WAY  # it had sent them, and could not say so
    return f"{count} delivered in {seconds:.1f} s, {count - kill_at} of them after the kill; {twice} came twice"


def test_hundreds_of_deliveries_survive_a_kill(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = lose_nothing(database_url, tmp_path, 300, 60, wait=False)
    with capsys.disabled():
        print(said)


def test_webhooks_come_and_go_while_jobs_tell_them_things(
    database: Database, settings: Settings, receiver: Receiver
) -> None:
    """Whoever makes and deletes them, writes events and delivers takes locks in one order."""
    variant = add_variant(database)

    def come_and_go() -> None:
        for _ in range(6):
            hook, _ = rows.add_webhook(database, settings, variant.tenant_id, receiver.url)
            add_job(database, variant)
            with database.write() as session:
                webhooks.remove(session, variant.tenant_id, hook.id)

    with rows.delivering(database, settings), rows.delivering(database, settings), ThreadPoolExecutor(4) as pool:
        for ended in [pool.submit(come_and_go) for _ in range(4)]:
            ended.result()
    with database.read() as session:
        assert session.get_one(Tenant, variant.tenant_id).webhooks == 0


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_thousand_deliveries_survive_a_kill(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = lose_nothing(database_url, tmp_path, 10_000, 2_000)
    with capsys.disabled():
        print(said)
