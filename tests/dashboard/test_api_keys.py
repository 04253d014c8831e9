"""The page of API keys: made with what the maker may do at most, shown once, revoked."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import httpx

from publisher.keys.scopes import Scope
from publisher.keys.text import PATTERN
from publisher.people.roles import Role
from publisher.store.audit import AuditFilters, all_entries
from publisher.store.models import ApiKey, AuditEntry
from tests.dashboard.conftest import RunningDashboard, csrf
from tests.dashboard.rows import Account
from tests.dashboard.scene import revoked
from tests.dashboard.test_pages import HOSTILE, look
from tests.dashboard.test_settings import as_member, with_scopes

PAGE = "/settings/keys"


def make(browser: httpx.Client, **fields: str | list[str]) -> httpx.Response:
    typed: dict[str, str | list[str]] = {"name": "ci", "scopes": ["models:read"]}
    return browser.post(PAGE, data={"csrf": csrf(browser.get(PAGE)), **typed, **fields})


def key_in(answer: httpx.Response) -> str:
    assert answer.status_code == 201, answer.text
    found = PATTERN.search(answer.text)
    assert found is not None
    return found[0]


def changes(account: Account, action: str) -> list[AuditEntry]:
    with account.database.read() as session:
        return list(all_entries(session, AuditFilters(action=action), account.tenant_id))


def test_a_key_is_shown_once_and_opens_what_was_ticked(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    answer = make(browser, scopes=["models:read", "hub:read"])
    key = key_in(answer)
    assert answer.headers["cache-control"] == "no-store"
    assert 'data-copy="secret"' in answer.text
    page = look(browser, PAGE)
    assert key not in page
    assert key[:12] in page
    me = httpx.get(f"{dashboard.url}/v1/me", headers={"Authorization": f"Bearer {key}"}).raise_for_status().json()
    assert (me["key_name"], me["scopes"]) == ("ci", ["hub:read", "models:read"])
    made = changes(account, "key.create")[-1]
    assert (made.actor, made.resource, made.related) == ("session", me["key_id"], account.key_id)
    assert made.details == {"name": "ci"}


def test_a_key_ends_on_the_day_that_was_asked_for(account: Account, browser: httpx.Client) -> None:
    day = datetime.fromtimestamp(time.time() + 40 * 86400, UTC).date()
    key_in(make(browser, expires_at=day.isoformat()))
    with account.database.read() as session:
        ends = session.get_one(ApiKey, changes(account, "key.create")[-1].resource).expires_at
    assert ends == datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    assert f"{day.isoformat()} 00:00 UTC" in look(browser, PAGE)


def test_a_form_comes_back_with_what_was_typed_and_the_fault_at_its_field(browser: httpx.Client) -> None:
    answer = make(browser, name="", scopes=["hub:read"], expires_at="2020-01-01")
    assert answer.status_code == 422
    assert re.search(r'value="hub:read" checked', answer.text)
    assert 'value="2020-01-01"' in answer.text
    assert re.search(
        r'id="name"[^>]*aria-describedby="name-fault name-hint" aria-invalid="true" autofocus', answer.text
    )
    assert re.search(r'id="name-fault" class="problem">[^<]*at least 1 character', answer.text)
    past = make(browser, expires_at="2020-01-01")
    assert re.search(r'id="expires_at-fault" class="problem">[^<]*has passed', past.text)
    assert re.search(r'id="expires_at-fault"[^>]*>[^<]*is not a day', make(browser, expires_at="soon").text)
    unticked = make(browser, scopes=[], name=HOSTILE)
    assert re.search(r'id="scopes-fault" class="problem">Tick at least one', unticked.text)
    assert "<script>" not in unticked.text
    assert PATTERN.search(unticked.text) is None


def test_nobody_gives_more_than_they_have(dashboard: RunningDashboard, account: Account) -> None:
    with with_scopes(dashboard, account, Scope.ADMIN, Scope.MODELS_READ) as browser:
        assert re.findall(r'name="scopes" value="([^"]+)"', browser.get(PAGE).text) == ["models:read", "admin"]
        refused = make(browser, scopes=["models:read", "hub:write"])
        assert refused.status_code == 403
        assert re.search(r'id="scopes-fault"[^>]*>[^<]*does not have hub:write', refused.text)


def test_a_revoked_key_opens_nothing_and_a_strangers_or_older_one_is_not_offered(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    key_in(make(browser, name="gone"))
    id = changes(account, "key.create")[-1].resource
    with with_scopes(dashboard, account, Scope.ADMIN) as other:
        page = other.get(PAGE).text
        assert f"{PAGE}/{id}/revoke" not in page
        assert other.post(f"{PAGE}/{id}/revoke", data={"csrf": csrf(other.get(PAGE))}).status_code == 403
    assert f"{PAGE}/{id}/revoke" in browser.get(PAGE).text
    answer = browser.post(f"{PAGE}/{id}/revoke", data={"csrf": csrf(browser.get(PAGE))})
    assert (answer.status_code, answer.headers["location"]) == (303, PAGE)
    assert revoked(account, id)
    assert changes(account, "key.revoke")[-1].actor == "session"
    assert f"{PAGE}/{id}/revoke" not in browser.get(PAGE).text


def test_the_last_key_that_makes_others_stays(account: Account, browser: httpx.Client) -> None:
    answer = browser.post(f"{PAGE}/{account.key_id}/revoke", data={"csrf": csrf(browser.get(PAGE))})
    assert answer.status_code == 409
    assert not revoked(account, account.key_id)


def test_an_admin_who_signed_in_as_a_person_makes_and_revokes_keys(
    dashboard: RunningDashboard, account: Account
) -> None:
    with as_member(dashboard, account, Role.ADMIN) as browser:
        key = key_in(make(browser, scopes=["admin", "models:read"]))
        assert httpx.get(f"{dashboard.url}/v1/jobs", headers={"Authorization": f"Bearer {key}"}).is_success
        page = look(browser, PAGE)
        assert '"Made by">Ms Admin<' in page
        assert browser.post(f"{PAGE}/{account.key_id}/revoke", data={"csrf": csrf(browser.get(PAGE))}).is_redirect
    assert revoked(account, account.key_id)
    made = changes(account, "key.create")[-1]
    assert made.actor == "session"
    assert made.key_id == made.related
    assert str(made.related).startswith("mem_")
