"""The page of the audit log: newest first, narrowed down by what stands in its address."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import httpx

from publisher.dashboard.listing import PAGE as LINES
from publisher.store.audit import record
from tests.dashboard.conftest import RunningDashboard, csrf
from tests.dashboard.rows import Account
from tests.dashboard.test_api_keys import changes, make
from tests.dashboard.test_pages import HOSTILE, look

PAGE = "/settings/audit"


def actions(page: str) -> list[str]:
    return re.findall(r'"Action"><a[^>]*>([^<]+)<', page)


def test_it_tells_who_did_what_from_where(account: Account, browser: httpx.Client) -> None:
    make(browser, name="ci")
    page = look(browser, PAGE)
    assert actions(page) == ["key.create", "session.begin", "key.create"]
    row = page.split("<tr>")[2]
    id = changes(account, "key.create")[-1].resource
    for told in (">laptop</a>", "session", f">{id}</a>", f">{account.key_id}</a>", "127.0.0.1", '"name": "ci"'):
        assert told in row, told


def test_filters_stand_in_the_address(account: Account, browser: httpx.Client) -> None:
    make(browser, name="ci")
    id = changes(account, "key.create")[-1].resource
    assert actions(look(browser, f"{PAGE}?action=key")) == ["key.create"] * 2
    assert actions(look(browser, f"{PAGE}?resource={id}")) == ["key.create"]
    page = look(browser, f"{PAGE}?key_id={account.key_id}")
    assert actions(page) == ["key.create", "session.begin"]
    assert f'<option value="{account.key_id}" selected>laptop' in page
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")
    assert actions(look(browser, f"{PAGE}?created_before={tomorrow}")) == actions(look(browser, PAGE))
    page = look(browser, f"{PAGE}?created_after={tomorrow}&action=key")
    assert "Nothing of this kind was done." in page
    assert f'value="{tomorrow}"' in page
    # what a form sends that nothing was typed into
    assert actions(look(browser, f"{PAGE}?action=&key_id=&resource=&created_after=&created_before="))


def test_a_time_that_is_none_is_told_at_its_field(browser: httpx.Client) -> None:
    answer = browser.get(PAGE, params={"created_after": HOSTILE, "action": "key"})
    assert answer.status_code == 422
    assert re.search(r'id="created_after-fault" class="problem">', answer.text)
    assert 'value="key"' in answer.text
    assert "<script>" not in answer.text


def test_pages_keep_their_filters(account: Account, browser: httpx.Client) -> None:
    with account.database.write() as session:
        for number in range(LINES + 2):
            record(session, "job.cancel", f"job_{number}", tenant_id=account.tenant_id)
    page = look(browser, f"{PAGE}?action=job.cancel")
    (older,) = re.findall(r'href="([^"]+)" rel="next"', page)
    shown = re.findall(r">(job_\d+)</a>", page)
    page = look(browser, older)
    shown += re.findall(r">(job_\d+)</a>", page)
    assert sorted(shown) == sorted(f"job_{number}" for number in range(LINES + 2))
    assert f'href="{PAGE}?action=job.cancel">Newest' in page


def test_hostile_entries_stay_text(account: Account, browser: httpx.Client) -> None:
    with account.database.write() as session:
        record(session, "hub.commit", HOSTILE, tenant_id=account.tenant_id, related=HOSTILE, title=HOSTILE)
    text = browser.get(PAGE).text
    assert "<script>" not in text
    assert "<img src=x" not in text
    assert text.count("&lt;script&gt;") == 3


def test_another_tenants_key_is_no_filter(dashboard: RunningDashboard, account: Account, browser: httpx.Client) -> None:
    other = dashboard.account()
    with dashboard.signed_in(other) as stranger:
        make(stranger, name="theirs")
        assert csrf(stranger.get(PAGE))
    page = look(browser, f"{PAGE}?key_id={other.key_id}")
    assert actions(page) == []
    assert "theirs" not in page
