"""Signing in and out: what the cookie holds, when it is refused, and what a form must carry."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from publisher.dashboard.session import SESSION_COOKIE, Sessions
from publisher.dashboard.sign_in import START
from publisher.keys.scopes import Scope
from publisher.settings import Settings
from publisher.store import keys
from publisher.store.audit import AuditFilters, entries
from publisher.store.models import ApiKey
from tests.dashboard.conftest import RunningDashboard, csrf, serve, sign_in
from tests.dashboard.rows import Account

SECRET = b"s" * 32


def test_key_opens_the_page_that_was_asked_for(dashboard: RunningDashboard, account: Account) -> None:
    with dashboard.browser() as browser:
        sent_away = browser.get("/variants?cursor=var_9")
        assert sent_away.status_code == 303
        form = browser.get(sent_away.headers["location"])
        assert 'value="/variants?cursor=var_9"' in form.text
        answer = browser.post("/login", data={"csrf": csrf(form), "key": account.key, "next": "/variants?cursor=var_9"})
        assert answer.headers["location"] == "/variants?cursor=var_9"
        assert browser.get("/variants?cursor=var_9").status_code == 200


def test_start_leads_to_the_first_page_that_a_key_may_open(dashboard: RunningDashboard, account: Account) -> None:
    key = keys.new_key()
    with account.database.write() as session:
        keys.add_key(session, account.tenant_id, "Hub alone", key, scopes=[Scope.HUB_READ])
    for each, first in ((account.key, "/overview"), (key, "/settings")):
        with dashboard.browser() as browser:
            assert browser.get("/").headers["location"] == "/login?next=%2F"
            assert sign_in(browser, each).headers["location"] == START
            assert browser.get(START).headers["location"] == first


def test_wrong_key_is_refused_in_one_way(dashboard: RunningDashboard, account: Account) -> None:
    with dashboard.browser() as browser:
        answers = [sign_in(browser, key) for key in ("", "loram_wrong", account.key[:-1], "ключ")]
        assert {answer.status_code for answer in answers} == {401}
        assert all("This API key is wrong, revoked or expired." in answer.text for answer in answers)
        assert browser.get("/jobs").status_code == 303


def test_wrong_key_is_not_echoed(dashboard: RunningDashboard) -> None:
    with dashboard.browser() as browser:
        assert "loram_almost_right" not in sign_in(browser, "loram_almost_right").text


def test_cookie_is_for_this_site_only_and_does_not_hold_the_key(dashboard: RunningDashboard, account: Account) -> None:
    with dashboard.browser() as browser:
        cookie = sign_in(browser, account.key).headers.get_list("set-cookie")[0]
    assert cookie.startswith(f"{SESSION_COOKIE}={account.key_id}.")
    assert account.key not in cookie
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    assert "max-age=43200" in cookie.lower()


def test_cookie_is_secure_behind_https(tmp_path: Path) -> None:
    with serve(tmp_path, public_url="https://loram.example.org") as dashboard:
        account = dashboard.account()
        with dashboard.browser() as browser:
            form = browser.get("/login")
            assert "secure" in form.headers["set-cookie"].lower()
            # httpx keeps a secure cookie from http, as a browser would: it is sent by hand
            pair = form.headers["set-cookie"].split(";")[0]
            answer = browser.post("/login", data={"csrf": csrf(form), "key": account.key}, headers={"Cookie": pair})
    assert answer.status_code == 303
    assert "secure" in answer.headers.get_list("set-cookie")[0].lower()


def test_signing_out_ends_the_session(browser: httpx.Client) -> None:
    answer = browser.post("/logout", data={"csrf": csrf(browser.get("/jobs"))})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login"
    assert browser.get("/jobs").headers["location"].startswith("/login")


def test_a_session_and_what_it_does_are_in_the_audit_log(dashboard: RunningDashboard, account: Account) -> None:
    work = account.job()
    with dashboard.signed_in(account) as browser:
        token = csrf(browser.get("/jobs"))
        assert browser.post(f"/jobs/{work.job_id}/cancel", data={"csrf": token}).status_code == 303
        browser.post("/logout", data={"csrf": token})
    with dashboard.database.read() as session:
        log = session.scalars(entries(account.tenant_id, AuditFilters(key_id=account.key_id))).all()
    told = sorted(log, key=lambda row: row.at)
    assert [row.action for row in told] == ["session.begin", "job.cancel", "session.end"]
    assert {row.actor for row in told} == {"session"}
    assert len({row.actor_id for row in told}) == 1
    assert all(row.request_id and row.address for row in told)
    assert account.key not in str([vars(row) for row in told])


def test_a_sign_in_that_is_refused_leaves_no_row(dashboard: RunningDashboard, account: Account) -> None:
    with dashboard.browser() as browser:
        assert sign_in(browser, f"{account.key}x").status_code == 401
    with dashboard.database.read() as session:
        assert session.scalars(entries(account.tenant_id, AuditFilters(action="session"))).all() == []


def test_revoked_key_is_signed_out_at_once(dashboard: RunningDashboard, account: Account) -> None:
    with dashboard.signed_in(account) as browser:
        with dashboard.database.write() as session:
            keys.revoke(session, session.get_one(ApiKey, account.key_id))
        assert browser.get("/jobs").status_code == 303
        assert browser.get("/jobs/x/events", headers={"Accept": "text/event-stream"}).status_code == 401
        assert sign_in(browser, account.key).status_code == 401


def test_form_without_this_sessions_token_is_refused(dashboard: RunningDashboard, account: Account) -> None:
    work = account.job()
    with dashboard.signed_in(account) as browser, dashboard.signed_in(dashboard.account()) as other:
        for token in ("", "0" * 64, csrf(other.get("/jobs"))):
            assert browser.post(f"/jobs/{work.job_id}/cancel", data={"csrf": token}).status_code == 403
            assert browser.post("/logout", data={"csrf": token}).status_code == 403
        assert "queued" in browser.get(f"/jobs/{work.job_id}").text


def test_sign_in_form_of_another_site_is_refused(dashboard: RunningDashboard, account: Account) -> None:
    with dashboard.browser() as stranger, dashboard.browser() as browser:
        stolen = csrf(stranger.get("/login"))
        browser.get("/login")
        assert browser.post("/login", data={"csrf": stolen, "key": account.key}).status_code == 403
        assert browser.get("/jobs").status_code == 303


@pytest.mark.parametrize(
    "address",
    [
        *("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/\t/evil.example"),
        *("//[", "https://[::1", "//a\u2100b"),  # no addresses at all
    ],
)
def test_sign_in_leads_to_no_other_site(dashboard: RunningDashboard, account: Account, address: str) -> None:
    with dashboard.browser() as browser:
        assert 'name="next" value="/"' in browser.get("/login", params={"next": address}).text
        assert sign_in(browser, account.key, next=address).headers["location"] == START


def test_link_from_another_site_finds_the_session(dashboard: RunningDashboard) -> None:
    with dashboard.browser() as browser:
        # a browser keeps the strict cookie back here, and sends it once the page asks for itself
        arrived = browser.get("/jobs", headers={"Sec-Fetch-Site": "cross-site"})
    assert arrived.status_code == 200
    assert 'http-equiv="refresh"' in arrived.text


def test_changed_or_expired_cookies_open_nothing() -> None:
    sessions = Sessions(SECRET, secure=False)
    genuine = sessions.seal("key_1")
    opened = sessions.open(genuine)
    assert opened is not None
    assert opened.stands_on == "key_1"
    assert sessions.seal("key_1", opened.expires) != genuine  # who signs in again has another session
    key_id, number, until, mac = genuine.split(".")
    later = f"{key_id}.{number}.{int(until) + 1}.{mac}"
    foreign = Sessions(b"t" * 32, secure=False).seal("key_1")
    over = sessions.seal("key_1", expires=time.time() - 1)
    for value in ("", ".", "a.b.c", genuine[:-1], later, genuine.replace("key_1", "key_2"), foreign, over):
        assert sessions.open(value) is None


def test_form_token_is_no_session(dashboard: RunningDashboard) -> None:
    sessions = Sessions(SECRET, secure=False)
    assert sessions.open(f"key_1.9999999999.{sessions.csrf('key_1.9999999999')}") is None


def test_every_page_needs_a_session(dashboard: RunningDashboard) -> None:
    paths = ["/jobs", "/jobs/x", "/variants", "/variants/x", "/variants/x/files/y", "/base-models", "/base-models/x"]
    with dashboard.browser() as browser:
        assert {browser.get(path).status_code for path in paths} == {303}
        assert {browser.post(f"/jobs/x/{what}").headers["location"] for what in ("cancel", "retry")} == {"/login"}


def test_headers_allow_nothing_inline_and_no_frames(browser: httpx.Client) -> None:
    for path in ("/jobs", "/login", "/jobs/x"):
        headers = browser.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"


def test_secret_of_the_settings_signs(tmp_path: Path) -> None:
    one, other = (Sessions(Settings(data_dir=tmp_path).secret_bytes(), secure=False) for _ in range(2))
    assert one.open(other.seal("key_1")) is not None
