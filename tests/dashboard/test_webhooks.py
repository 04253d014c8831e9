"""The pages of webhooks: made, changed, tried, disabled, deleted, and what became of each delivery."""

from __future__ import annotations

import re

import httpx
import pytest

from publisher.store.models import Webhook, WebhookDelivery
from publisher.store.states import DeliveryState
from publisher.store.tenancy import readable_by
from tests.dashboard.conftest import RunningDashboard, csrf
from tests.dashboard.rows import Account
from tests.dashboard.scene import NOWHERE, add_webhook
from tests.dashboard.test_api_keys import changes
from tests.dashboard.test_pages import HOSTILE, look

PAGE = "/settings/webhooks"
SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]+")


@pytest.fixture(scope="module")
def dashboard(quiet: RunningDashboard) -> RunningDashboard:
    return quiet


def send(browser: httpx.Client, path: str = "", **fields: str | list[str]) -> httpx.Response:
    return browser.post(f"{PAGE}{path}", data={"csrf": csrf(browser.get(PAGE)), **fields})


def only(account: Account) -> Webhook:
    with account.database.read() as session:
        return session.scalars(readable_by(account.tenant_id, Webhook)).one()


def test_a_webhook_is_made_and_its_secret_shown_once(account: Account, browser: httpx.Client) -> None:
    answer = send(browser, url=NOWHERE, events=["job.failed", "job.queued"], description="of ads")
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    secret = SECRET.findall(answer.text)
    assert len(set(secret)) == 1
    row = only(account)
    assert (row.url, row.events, row.description) == (NOWHERE, ["job.queued", "job.failed"], "of ads")
    for path in (PAGE, f"{PAGE}/{row.id}"):
        assert SECRET.search(look(browser, path)) is None
    assert [each.actor for each in changes(account, "webhook.create")] == ["session"]


def test_a_form_comes_back_with_what_was_typed_and_the_fault_at_its_field(browser: httpx.Client) -> None:
    answer = send(browser, url="http://10.0.0.1/x", events=["job.failed"], description=HOSTILE)
    assert answer.status_code == 422
    assert re.search(r'id="url-fault" class="problem">Http shows what is sent', answer.text)
    assert 'value="http://10.0.0.1/x"' in answer.text
    assert re.search(r'value="job.failed" checked', answer.text)
    assert "&lt;script&gt;" in answer.text
    assert "<script>" not in answer.text
    unknown = send(browser, url=NOWHERE, events=["job.gone"])
    assert re.search(r'id="events-fault"[^>]*>There is no event', unknown.text)


def test_a_webhook_is_changed_disabled_enabled_and_deleted(account: Account, browser: httpx.Client) -> None:
    id = add_webhook(account)
    here = f"/{id}"
    answer = send(browser, here, url="https://b.example/", events=["job.failed"], description="new")
    assert (answer.status_code, answer.headers["location"]) == (303, PAGE + here)
    page = look(browser, PAGE + here)
    assert 'value="https://b.example/"' in page
    assert re.search(r'value="job.failed" checked', page)
    assert send(browser, here, url="https://b.example/", events=["job.failed"], description="newer").is_redirect
    assert send(browser, here, url="https://b.example/", events=["job.failed"], description="newer").is_redirect
    assert send(browser, here, url="nowhere", description="kept").status_code == 422
    assert only(account).url == "https://b.example/"
    assert send(browser, f"{here}/disable").is_redirect
    page = look(browser, PAGE + here)
    assert "somebody disabled it." in page
    assert f"{PAGE}{here}/test" not in page
    assert send(browser, f"{here}/test").status_code == 409
    assert send(browser, f"{here}/enable").is_redirect
    assert only(account).disabled_at is None
    assert send(browser, f"{here}/delete").headers["location"] == PAGE
    assert "There is none yet." in look(browser, PAGE)
    told = [(each.action, each.details.get("fields")) for each in changes(account, "webhook")]
    assert told[1:] == [
        ("webhook.change", ["description", "events", "url"]),
        ("webhook.change", ["description"]),
        ("webhook.change", ["enabled"]),
        ("webhook.change", ["enabled"]),
        ("webhook.delete", None),
    ]


def test_another_secret_is_shown_once_beside_the_old_one(account: Account, browser: httpx.Client) -> None:
    assert send(browser, url=NOWHERE).status_code == 201
    id, before = only(account).id, only(account).secret
    answer = send(browser, f"/{id}/rotate-secret")
    assert answer.status_code == 200
    assert SECRET.search(answer.text) is not None
    assert "messages are signed with the secret of before" in answer.text
    assert (only(account).previous_secret, only(account).secret != before) == (before, True)
    assert "one of before signs until" in look(browser, f"{PAGE}/{id}")


def test_deliveries_tell_what_became_of_them_and_are_sent_again(account: Account, browser: httpx.Client) -> None:
    id = add_webhook(account)
    page = look(browser, f"{PAGE}/{id}")
    for told in (
        'data-state="delivered"',
        'data-state="failed"',
        "503",
        "it answered 503.",
        'Next try">in ',
        '"job_id"',
    ):
        assert told in page
    failed = look(browser, f"{PAGE}/{id}?state=failed")
    assert failed.count("</tr>") == 2
    (delivery,) = re.findall(r"deliveries/(dlv_\w+)/redeliver", failed)
    assert send(browser, f"/{id}/deliveries/{delivery}/redeliver").headers["location"] == f"{PAGE}/{id}"
    with account.database.read() as session:
        row = session.get_one(WebhookDelivery, delivery)
        assert row.asked_at > row.created_at
    assert changes(account, "webhook.redeliver")[0].related == delivery
    assert "None is failed." in look(browser, f"{PAGE}/{id}?state=failed")
    assert browser.get(f"{PAGE}/{id}?state=lost").status_code == 404


def test_a_test_delivery_is_in_the_log(account: Account, browser: httpx.Client) -> None:
    id = add_webhook(account)
    assert send(browser, f"/{id}/test").is_redirect
    with account.database.read() as session:
        states = [row.state for row in session.scalars(readable_by(account.tenant_id, WebhookDelivery))]
    assert len(states) == len(DeliveryState) + 1
    assert "webhook.test" in look(browser, f"{PAGE}/{id}")


def test_as_many_as_a_tenant_may_have(dashboard: RunningDashboard, account: Account, browser: httpx.Client) -> None:
    most = dashboard.service.settings.webhooks_per_tenant
    for _ in range(most):
        add_webhook(account)
    answer = send(browser, url=NOWHERE)
    assert answer.status_code == 409
    assert re.search(rf'class="problem" role="alert">There are {most} webhooks already', answer.text)
