"""Webhooks by REST: made, tried, changed, rotated, looked at, deleted; and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from publisher.store.models import Tenant as TenantRow
from publisher.store.models import Webhook
from publisher.webhooks.register import EVENT_TYPES, SUBSCRIBABLE
from tests.api.conftest import Body, RunningApi, Tenant, created, refused, serve_api, write_corpus
from tests.models import tiny_llama
from tests.servers import wait_until
from tests.webhooks.receiver import Receiver, answering, receiving
from tests.webhooks.rows import FAST


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    """That may send to loopback."""
    with serve_api(tmp_path_factory.mktemp("api"), webhooks_per_tenant=3, **FAST) as running:
        tiny_llama(running.roots / "tiny")
        write_corpus(running.roots / "novel.jsonl")
        yield running


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def made(client: httpx.Client, url: str, **more: Any) -> Body:
    return created(client.post("/v1/webhooks", json={"url": url} | more))


def deliveries(client: httpx.Client, id: str, **query: str) -> list[Body]:
    return list(client.get(f"/v1/webhooks/{id}/deliveries", params=query).raise_for_status().json()["items"])


def settled(client: httpx.Client, id: str, state: str = "delivered", count: int = 1) -> list[Body]:
    wait_until(lambda: len(deliveries(client, id, state=state)) >= count, f"{count} {state}")
    return deliveries(client, id, state=state)


def test_a_test_event_arrives_signed_with_the_secret_that_was_shown_once(
    client: httpx.Client, receiver: Receiver
) -> None:
    hook = made(client, receiver.url, events=["job.failed"], description="ci")
    assert hook["secret"].startswith("whsec_")
    answer = client.post(f"/v1/webhooks/{hook['id']}/test")
    assert answer.status_code == 202
    (got,) = receiver.has(1)
    (done,) = settled(client, hook["id"])
    told = Verifier(hook["secret"]).verify(got.body, got.headers)
    assert (told["type"], told["data"]) == ("webhook.test", {"webhook_id": hook["id"]})
    assert (done["id"], done["event_id"]) == (answer.json()["id"], got.message_id)
    assert (done["status"], done["attempts"], done["next_attempt_at"]) == (204, 1, None)
    shown = [client.get("/v1/webhooks").text, client.get(f"/v1/webhooks/{hook['id']}").text]
    assert all(hook["id"] in text and hook["secret"] not in text and '"secret"' not in text for text in shown)


def test_the_secret_is_sealed_in_the_database(api: RunningApi, client: httpx.Client, receiver: Receiver) -> None:
    hook = made(client, receiver.url)
    client.post(f"/v1/webhooks/{hook['id']}/rotate-secret").raise_for_status()
    with api.database.read() as session:
        row = session.get_one(Webhook, hook["id"])
    assert hook["secret"].removeprefix("whsec_") not in str(vars(row))


def test_a_variants_job_is_told_from_its_start(client: httpx.Client, receiver: Receiver, variant_body: Body) -> None:
    hook = made(client, receiver.url, events=["job.cancelled", "job.queued"])
    assert hook["events"] == ["job.queued", "job.cancelled"]
    variant = created(client.post("/v1/variants", json=variant_body | {"labels": {"team": "search"}}))
    client.post(f"/v1/jobs/{variant['job']['id']}/cancel").raise_for_status()
    told = [got.json for got in receiver.has(2)]
    assert {each["type"] for each in told} == {"job.queued", "job.cancelled"}
    for each in told:
        assert each["data"]["variant_id"] == variant["id"]
        assert each["data"]["labels"] == {"team": "search"}
        assert each["data"]["repo_id"] == variant_body["publish"]["repo_id"]


def test_both_secrets_sign_after_a_rotation(client: httpx.Client, receiver: Receiver) -> None:
    hook = made(client, receiver.url)
    rotated = client.post(f"/v1/webhooks/{hook['id']}/rotate-secret").raise_for_status().json()
    assert rotated["secret"] != hook["secret"]
    assert rotated["previous_secret_until"] is not None
    client.post(f"/v1/webhooks/{hook['id']}/test").raise_for_status()
    (got,) = receiver.has(1)
    for secret in (hook["secret"], rotated["secret"]):
        Verifier(secret).verify(got.body, got.headers)


def test_the_secret_of_before_signs_no_longer_than_it_should(
    api: RunningApi, client: httpx.Client, receiver: Receiver
) -> None:
    hook = made(client, receiver.url)
    rotated = client.post(f"/v1/webhooks/{hook['id']}/rotate-secret").raise_for_status().json()
    with api.database.write() as session:
        session.get_one(Webhook, hook["id"]).previous_until = 1.0
    client.post(f"/v1/webhooks/{hook['id']}/test").raise_for_status()
    (got,) = receiver.has(1)
    Verifier(rotated["secret"]).verify(got.body, got.headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(hook["secret"]).verify(got.body, got.headers)


def test_a_delivery_is_sent_again_on_demand(client: httpx.Client, receiver: Receiver) -> None:
    hook = made(client, receiver.url)
    client.post(f"/v1/webhooks/{hook['id']}/test").raise_for_status()
    (done,) = settled(client, hook["id"])
    again = client.post(f"/v1/webhooks/{hook['id']}/deliveries/{done['id']}/redeliver")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    assert len({got.message_id for got in receiver.has(2)}) == 1
    refused(client.post(f"/v1/webhooks/{hook['id']}/deliveries/dlv_none/redeliver"), 404)


def test_what_fails_is_shown_with_its_reason_and_the_next_try(client: httpx.Client, receiver: Receiver) -> None:
    receiver.manner = answering(503, "Retry-After: 3600")
    hook = made(client, receiver.url)
    client.post(f"/v1/webhooks/{hook['id']}/test").raise_for_status()
    wait_until(lambda: deliveries(client, hook["id"])[0]["error"] is not None, "a failure")
    (row,) = deliveries(client, hook["id"])
    assert (row["state"], row["status"], row["error"]) == ("pending", 503, "answered 503")
    assert 3590 < row["next_attempt_at"] - row["last_attempt_at"] < 3600 * 1.21
    assert client.get(f"/v1/webhooks/{hook['id']}").json()["failing_since"] is not None
    assert deliveries(client, hook["id"], state="delivered") == []


def test_a_webhook_is_changed_disabled_and_enabled(client: httpx.Client, receiver: Receiver) -> None:
    path = f"/v1/webhooks/{made(client, 'http://127.0.0.1:9/', events=['job.failed'])['id']}"
    changed = client.patch(path, json={"url": receiver.url, "description": "new"}).raise_for_status().json()
    assert (changed["url"], changed["description"], changed["events"]) == (receiver.url, "new", ["job.failed"])
    assert client.patch(path, json={"events": None}).json()["events"] is None
    disabled = client.patch(path, json={"enabled": False}).json()
    assert (disabled["enabled"], disabled["disabled_reason"]) == (False, "somebody disabled it.")
    assert "is disabled" in refused(client.post(f"{path}/test"), 409)
    assert client.patch(path, json={"enabled": True}).json()["disabled_at"] is None
    assert client.post(f"{path}/test").status_code == 202
    receiver.has(1)


def test_a_deleted_webhook_makes_room_for_another(
    api: RunningApi, tenant: Tenant, client: httpx.Client, receiver: Receiver
) -> None:
    hooks = [made(client, receiver.url) for _ in range(3)]
    assert "3 webhooks" in refused(client.post("/v1/webhooks", json={"url": receiver.url}), 409)
    client.post(f"/v1/webhooks/{hooks[0]['id']}/test").raise_for_status()
    settled(client, hooks[0]["id"])
    assert client.delete(f"/v1/webhooks/{hooks[0]['id']}").status_code == 204
    refused(client.delete(f"/v1/webhooks/{hooks[0]['id']}"), 404)
    refused(client.get(f"/v1/webhooks/{hooks[0]['id']}/deliveries"), 404)
    made(client, receiver.url)
    with api.database.read() as session:
        assert session.scalar(select(TenantRow.webhooks).where(TenantRow.id == tenant.id)) == 3


def test_nobody_else_sees_or_touches_a_webhook(
    client: httpx.Client, stranger: httpx.Client, receiver: Receiver
) -> None:
    hook = made(client, receiver.url)
    delivery = client.post(f"/v1/webhooks/{hook['id']}/test").json()["id"]
    path = f"/v1/webhooks/{hook['id']}"
    calls = [
        ("GET", path), ("PATCH", path), ("DELETE", path), ("POST", f"{path}/test"), ("POST", f"{path}/rotate-secret"),
        ("GET", f"{path}/deliveries"), ("POST", f"{path}/deliveries/{delivery}/redeliver"),
    ]  # fmt: skip
    for method, url in calls:
        answer = stranger.request(method, url, json={} if method == "PATCH" else None)
        assert refused(answer, 404) == f"webhook {hook['id']} does not exist."
    assert stranger.get("/v1/webhooks").json()["items"] == []
    own = made(stranger, receiver.url)
    refused(stranger.post(f"/v1/webhooks/{own['id']}/deliveries/{delivery}/redeliver"), 404)


def test_events_that_there_are_not_are_refused_by_name(client: httpx.Client, receiver: Receiver) -> None:
    for names in (["job.exploded"], ["webhook.test"], ["job.failed", "job.exploded"]):
        said = refused(client.post("/v1/webhooks", json={"url": receiver.url, "events": names}), 422, "events")
        assert "there is no event" in said
        assert "job.failed" in said


WRONG = ["https://user:password@example.com/", "https://user@example.com/", "https://example.com/#part"]
WRONG += ["ftp://example.com/", "https://", "https:///path", "example.com", "https://example.com:0/", ""]
WRONG += ["https://exa mple.com/", "https://[::1/", "https://example.com:65536/", "https://xn--a/"]


@pytest.mark.parametrize("url", WRONG)
def test_urls_that_could_not_be_sent_to_are_refused(client: httpx.Client, url: str) -> None:
    refused(client.post("/v1/webhooks", json={"url": url}), 422, "url")


def test_unless_settings_allow_it_only_https_and_public_addresses_are_taken(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with serve_api(tmp_path_factory.mktemp("strict")) as strict, strict.tenant().client() as client:
        private = [
            "127.0.0.1", "[::1]", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "[fd00:ec2::254]",
            "[fe80::1]", "[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "224.0.0.1", "localhost",
            "db.internal", "168.63.129.16", "0.0.0.0", "[::]", "100.64.0.1", "LOCALHOST.", "[fec0::1]",
        ]  # fmt: skip
        for host in private:
            said = refused(client.post("/v1/webhooks", json={"url": f"https://{host}/"}), 422, "url")
            assert "private address" in said, host
        assert "https" in refused(client.post("/v1/webhooks", json={"url": "http://example.com/"}), 422, "url")
        hook = made(client, "https://example.com/hook")
        assert "private address" in refused(
            client.patch(f"/v1/webhooks/{hook['id']}", json={"url": "https://127.0.0.1/"}), 422, "url"
        )
        assert client.get(f"/v1/webhooks/{hook['id']}").json()["url"] == "https://example.com/hook"


def test_the_document_names_every_event_that_may_be_subscribed_to(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert str(list(SUBSCRIBABLE)) in str(schemas["WebhookRequest"])
    assert all(each.words.endswith(".") for each in EVENT_TYPES)
