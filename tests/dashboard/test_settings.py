"""The settings: who may open which page, that no tenant sees another's, and that names stay text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from publisher.dashboard.session import SESSION_COOKIE
from publisher.dashboard.settings import TABS
from publisher.keys.scopes import Scope
from publisher.keys.text import new_key
from publisher.people.roles import Role
from publisher.store import keys
from publisher.store.quotas import STORED_BYTES, set_limit
from publisher.store.tenants import find_tenant
from tests.dashboard.conftest import RunningDashboard, csrf, serve, sign_in
from tests.dashboard.rows import Account
from tests.dashboard.scene import add_member, add_repository, add_webhook, member_cookie, set_hub
from tests.dashboard.test_pages import HOSTILE, look

TAB = re.compile(r'href="([^"]+)"')
ADMINS = ("/settings/keys", "/settings/members", "/settings/webhooks", "/settings/hub", "/settings/audit")


def tabs(page: str) -> list[str]:
    found = re.search(r'<nav class="tabs"(.*?)</nav>', page, re.DOTALL)
    assert found is not None
    return TAB.findall(found[1])


@contextmanager
def with_scopes(dashboard: RunningDashboard, account: Account, *scopes: Scope) -> Iterator[httpx.Client]:
    key = new_key()
    with account.database.write() as session:
        keys.add_key(session, account.tenant_id, "scoped", key, account.key_id, scopes=scopes)
    with dashboard.browser() as browser:
        assert sign_in(browser, key).status_code == 303
        yield browser


@contextmanager
def as_member(dashboard: RunningDashboard, account: Account, role: Role) -> Iterator[httpx.Client]:
    with dashboard.browser() as browser:
        browser.cookies.set(SESSION_COOKIE, member_cookie(dashboard, account, role))
        yield browser


def test_an_admin_sees_every_page_and_begins_at_the_first(browser: httpx.Client) -> None:
    assert browser.get("/settings").headers["location"] == TABS[0].address
    addresses = [tab.address for tab in TABS]
    for address in addresses:
        page = look(browser, address)
        assert tabs(page) == addresses
        assert f'href="{address}" aria-current="page"' in page


def test_a_key_of_few_scopes_is_shown_what_it_may_open_and_refused_the_rest(
    dashboard: RunningDashboard, account: Account
) -> None:
    with with_scopes(dashboard, account, Scope.MODELS_READ) as browser:
        assert browser.get("/settings").headers["location"] == "/settings/quotas"
        assert tabs(look(browser, "/settings/quotas")) == ["/settings/quotas"]
        for address in (*ADMINS, "/repositories"):
            assert browser.get(address).status_code == 403, address
    with with_scopes(dashboard, account, Scope.ADMIN) as browser:
        assert tabs(look(browser, "/settings/keys")) == [*ADMINS[:4], "/settings/audit"]
        assert 'href="/settings" aria-current' in browser.get("/settings/keys").text
        assert browser.get("/settings/quotas").status_code == 403


def test_a_member_is_told_to_ask_an_admin(dashboard: RunningDashboard, account: Account) -> None:
    webhook = add_webhook(account)
    with as_member(dashboard, account, Role.MEMBER) as browser:
        assert tabs(look(browser, "/settings/quotas")) == ["/repositories", "/settings/quotas"]
        for address in ADMINS:
            refused = browser.get(address)
            assert refused.status_code == 403
            assert "Ask an admin of the tenant." in refused.text
        token = {"csrf": csrf(browser.get("/settings/quotas"))}
        for address in ("/settings/keys", f"/settings/keys/{account.key_id}/revoke", "/settings/hub/delete"):
            assert browser.post(address, data=token).status_code == 403, address
        assert browser.post(f"/settings/webhooks/{webhook}/delete", data=token).status_code == 403


def test_no_form_counts_without_its_sessions_token(browser: httpx.Client, account: Account) -> None:
    for address in ("/settings/keys", f"/settings/keys/{account.key_id}/revoke", "/settings/webhooks", "/settings/hub"):
        assert browser.post(address, data={"csrf": "0" * 64, "name": "x"}).status_code == 403, address


def test_another_tenants_settings_do_not_exist(dashboard: RunningDashboard, account: Account) -> None:
    webhook, repository = add_webhook(account, description="private-hook"), add_repository(dashboard, account)
    add_member(account, name="Private Person")
    with dashboard.signed_in(dashboard.account()) as stranger:
        token = {"csrf": csrf(stranger.get("/settings/keys")), "url": "https://a.example/"}
        for address in (f"/settings/webhooks/{webhook}", f"/repositories/{repository.id}"):
            assert stranger.get(address).status_code == 404, address
        head = repository.commit_id("main")
        assert stranger.get(f"/repositories/{repository.id}/files/{head}/README.md").status_code == 404
        for act in ("", "/enable", "/disable", "/test", "/rotate-secret", "/delete", "/deliveries/dlv_1/redeliver"):
            assert stranger.post(f"/settings/webhooks/{webhook}{act}", data=token).status_code == 404, act
        assert stranger.post(f"/settings/keys/{account.key_id}/revoke", data=token).status_code == 404
        for address in [*ADMINS, "/repositories", f"/settings/audit?resource={webhook}"]:
            page = look(stranger, address)
            assert account.name not in page
            assert account.key_id not in page
            assert "private-hook" not in page
            assert "Private Person" not in page


def test_hostile_names_stay_text(dashboard: RunningDashboard) -> None:
    account = dashboard.account(HOSTILE)
    webhook = add_webhook(account, f"https://a.example/?{HOSTILE}", HOSTILE)
    add_member(account, name=HOSTILE, email=f"{HOSTILE}@a.example")
    set_hub(dashboard, account)
    repository = add_repository(dashboard, account, **{"a<b>&.txt": "text"})
    with dashboard.signed_in(account) as browser:
        paths = [*ADMINS, f"/settings/webhooks/{webhook}", f"/settings/audit?resource={HOSTILE}&action={HOSTILE}"]
        for path in paths:
            page = browser.get(path).text
            assert "&lt;script&gt;" in page, path
            assert "<script>" not in page, path
            assert "<img src=x" not in page, path
        assert "a&lt;b&gt;&amp;.txt" in browser.get(f"/repositories/{repository.id}").text


def test_members_are_listed_with_role_and_state(account: Account, browser: httpx.Client) -> None:
    add_member(account, Role.VIEWER, "Mr Viewer", "viewer@example.org")
    page = look(browser, "/settings/members")
    (row,) = re.findall(r"<tr>(?:(?!</tr>).)*Mr Viewer.*?</tr>", page)
    for told in ("viewer@example.org", '"Role">viewer<', 'data-state="active"', '"Let in by">invitation<'):
        assert told in row
    assert f"publisher admin member add {account.name} " in page
    assert "no provider of identities" in page


def test_quotas_are_meters_where_there_is_a_limit(account: Account, browser: httpx.Client) -> None:
    account.job()
    page = look(browser, "/settings/quotas")
    assert "<meter" not in page
    with account.database.write() as session:
        set_limit(session, find_tenant(session, account.name), STORED_BYTES, 2**20)
    page = look(browser, "/settings/quotas")
    assert page.count("<meter") == 1
    assert "1.0 MiB" in page
    (queued,) = re.findall(r"jobs_queued.*?</tr>", page)
    assert '"Used" class="number">1<' in queued


def test_where_checkpoints_go_elsewhere_there_are_no_repositories(tmp_path: Path) -> None:
    with serve(tmp_path, hub_endpoint="https://hub.example") as dashboard:
        account = dashboard.account()
        with dashboard.signed_in(account) as browser:
            assert "/repositories" not in tabs(look(browser, "/settings/hub"))
            answer = browser.get("/repositories")
            assert answer.status_code == 404
            assert "https://hub.example" in answer.text


@pytest.mark.parametrize("path", ["/settings/keys?cursor=job_1", "/settings/webhooks/%00", "/repositories/a/b"])
def test_odd_addresses_are_answered_with_a_page(browser: httpx.Client, path: str) -> None:
    answer = browser.get(path)
    assert answer.is_client_error
    assert "<h1>" in answer.text
