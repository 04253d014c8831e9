"""What webhooks are told of is written in the transaction in which it happens, and only where somebody listens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from publisher.jobs import service, transitions
from publisher.jobs.transitions import Blame, Failure, PublishedFile, RetryPolicy
from publisher.jobs.waiting import Waiting, WaitKind
from publisher.store import webhooks
from publisher.store.database import Database
from publisher.store.models import Variant, Webhook, WebhookDelivery, WebhookEvent
from publisher.webhooks.register import EVENT_TYPES, SUBSCRIBABLE
from tests.jobs.rows import add_job, add_variant, claim
from tests.webhooks.rows import add_webhook, deliveries_of, events_of, fast

PUBLICATION = {"endpoint": "https://hub.example", "repo_id": "org/small", "commit": "c" * 40, "url": "https://h/x"}
POLICY = RetryPolicy(3, 0.0)


@pytest.fixture
def variant(database: Database) -> Variant:
    return add_variant(database)


@pytest.fixture
def hook(database: Database, variant: Variant, tmp_path: Path) -> Callable[..., Webhook]:
    """Makes a webhook of the variant's tenant."""

    def make(events: list[str] | None = None) -> Webhook:
        return add_webhook(database, fast(tmp_path), variant.tenant_id, "https://example.com/", events)[0]

    return make


def told(database: Database, variant: Variant) -> list[tuple[str, dict[str, Any]]]:
    return [(each.type, each.data) for each in events_of(database, variant.tenant_id)]


def names(database: Database, variant: Variant) -> list[str]:
    return [name for name, _ in told(database, variant)]


def succeed(database: Database, job_id: str) -> None:
    lease = claim(database, job_id)
    with database.write() as session:
        transitions.succeed(session, lease, PUBLICATION, {"format_version": 1}, [PublishedFile("a", 1, "0" * 64)])


def test_a_job_that_succeeds_tells_of_each_step_and_of_the_publication(
    database: Database, variant: Variant, hook: Callable[..., Webhook]
) -> None:
    hook()
    job_id = add_job(database, variant)
    succeed(database, job_id)
    found = told(database, variant)
    assert [name for name, _ in found] == ["job.queued", "job.started", "job.succeeded", "variant.published"]
    same = {"job_id": job_id, "variant_id": variant.id, "base_model_id": variant.base_model_id, "labels": {}}
    assert all(data.items() >= (same | {"repo_id": "org/small", "sweep_id": None}).items() for _, data in found)
    assert [data["seq"] for _, data in found] == [1, 2, 3, 3]
    assert found[-1][1]["publication"] == PUBLICATION
    assert found[1][1] | {"attempt": 1, "state": "running"} == found[1][1]


def test_failures_and_waiting_say_why(database: Database, variant: Variant, hook: Callable[..., Webhook]) -> None:
    hook()
    job_id = add_job(database, variant)
    away = Failure(Blame.INFRASTRUCTURE, "fetch", "the disk is on fire.", "Put it out.")
    wrong = Failure(Blame.REQUEST, "prune", "nothing is left.")
    with database.write() as session:
        transitions.wait(session, claim(database, job_id), Waiting(WaitKind.HUB, "the Hub is away."), 0.0)
    for failure in (away, wrong):
        with database.write() as session:
            transitions.fail(session, claim(database, job_id), failure, POLICY)
    found = told(database, variant)
    wanted = ["job.queued", "job.started", "job.waiting", "job.started", "job.retrying", "job.started", "job.failed"]
    assert [name for name, _ in found] == wanted
    assert found[2][1]["waiting"]["message"] == "the Hub is away."
    assert found[4][1]["failure"] == away.as_json()
    assert found[6][1]["failure"] == wrong.as_json()


def test_what_people_do_to_a_job_is_told(database: Database, variant: Variant, hook: Callable[..., Webhook]) -> None:
    hook()
    job_id = add_job(database, variant)
    for act in (service.pause, service.resume, service.cancel, service.retry):
        with database.write() as session:
            act(session, job_id)
    assert names(database, variant) == ["job.queued", "job.paused", "job.queued", "job.cancelled", "job.queued"]


def test_a_webhook_gets_what_it_subscribed_to_and_an_event_is_written_once(
    database: Database, variant: Variant, hook: Callable[..., Webhook]
) -> None:
    everything, failures, published = hook(), hook(["job.failed"]), hook(["variant.published"])
    succeed(database, add_job(database, variant))
    assert len(events_of(database, variant.tenant_id)) == 4
    got = [[row.event.type for row in deliveries_of(database, each)] for each in (everything, failures, published)]
    assert got[0] == ["job.queued", "job.started", "job.succeeded", "variant.published"]
    assert got[1:] == [[], ["variant.published"]]


def test_other_tenants_and_disabled_webhooks_are_told_nothing(
    database: Database, variant: Variant, hook: Callable[..., Webhook], tmp_path: Path
) -> None:
    other = add_variant(database)
    theirs, _ = add_webhook(database, fast(tmp_path), other.tenant_id, "https://example.com/")
    mine = hook()
    with database.write() as session:
        webhooks.disable(session, session.get_one(Webhook, mine.id), "enough.")
    add_job(database, variant)
    assert deliveries_of(database, theirs) == deliveries_of(database, mine) == []
    assert events_of(database, variant.tenant_id) == []


def test_a_change_that_is_rolled_back_tells_nothing(
    database: Database, variant: Variant, hook: Callable[..., Webhook]
) -> None:
    hook()
    with database.write() as session:
        service.enqueue(session, variant)
        session.rollback()
    assert names(database, variant) == []


def test_a_tenant_without_a_webhook_pays_no_statement_for_it(
    database: Database, variant: Variant, hook: Callable[..., Webhook]
) -> None:
    def sent() -> list[str]:
        statements: list[str] = []
        record = lambda *call: statements.append(call[2])  # noqa: E731
        event.listen(database.engine, "before_cursor_execute", record)
        add_job(database, variant)
        event.remove(database.engine, "before_cursor_execute", record)
        return statements

    without = sent()
    assert not [each for each in without if "webhook_" in each or "FROM webhooks" in each]
    kept = hook()
    assert [each for each in sent() if "webhook_deliveries" in each]
    with database.write() as session:
        webhooks.remove(session, variant.tenant_id, kept.id)
    assert sent() == without


def test_events_of_a_deleted_webhook_go_to_nobody(
    database: Database, variant: Variant, hook: Callable[..., Webhook]
) -> None:
    gone, stays = hook(), hook(["job.paused"])
    add_job(database, variant)
    with database.write() as session:
        webhooks.remove(session, variant.tenant_id, gone.id)
    add_job(database, variant)
    with database.read() as session:
        assert session.scalars(select(WebhookDelivery)).all() == []
        assert {row.id for row in session.scalars(select(Webhook))} == {stays.id}


def test_every_name_is_declared_once_in_the_fields_manner() -> None:
    names = [each.name for each in EVENT_TYPES]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and len(name.split(".")) == 2 for name in names)
    assert "webhook.test" not in SUBSCRIBABLE
    assert all(len(name) <= WebhookEvent.__table__.c.type.type.length for name in names)
