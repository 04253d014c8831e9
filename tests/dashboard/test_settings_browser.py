"""In a real browser: what shows a secret once is made once, however often a button is pressed or the page reloaded."""

from __future__ import annotations

from sqlalchemy import func, select

from publisher.store.models import ApiKey
from tests.dashboard.chromium import Chromium
from tests.dashboard.conftest import RunningDashboard
from tests.dashboard.rows import Account
from tests.dashboard.test_browser import enter

PAGE = "/settings/keys"


def keys_of(account: Account) -> int:
    with account.database.read() as session:
        mine = select(func.count()).select_from(ApiKey).where(ApiKey.tenant_id == account.tenant_id)
        return session.scalar(mine) or 0


def test_a_key_is_made_once_however_often_its_button_is_pressed_or_its_page_reloaded(
    window: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    before = keys_of(account)
    enter(window, dashboard, account)
    window.open(f"{dashboard.url}{PAGE}")
    window.type("input[name=name]", "ci")
    window.click("input[name=scopes]")
    window.run("[1, 2, 3].forEach(() => document.querySelector('form button.primary').click())")
    window.wait_for("document.querySelector('#secret') !== null")
    assert keys_of(account) == before + 1
    window.run("location.reload()")
    window.wait_for("document.querySelector('#secret') === null && document.readyState === 'complete'")
    assert window.run("location.pathname") == PAGE
    assert keys_of(account) == before + 1
