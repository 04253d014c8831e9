"""The page of a tenant's own Hub: its tokens are tried, never shown again, and forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from publisher.people.roles import Role
from publisher.store import hub_credentials
from tests.api.test_hub_credentials import READS, WRITES, whoami
from tests.dashboard.conftest import RunningDashboard, csrf
from tests.dashboard.rows import Account
from tests.dashboard.test_api_keys import changes
from tests.dashboard.test_pages import look
from tests.dashboard.test_settings import as_member
from tests.servers import serve

PAGE = "/settings/hub"


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """Knows two tokens."""
    with serve(Starlette(routes=[Route("/api/whoami-v2", whoami)])) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def dashboard(quiet: RunningDashboard) -> RunningDashboard:
    return quiet


def put(browser: httpx.Client, **fields: str) -> httpx.Response:
    return browser.post(PAGE, data={"csrf": csrf(browser.get(PAGE)), **fields})


def test_a_hub_is_set_shown_without_its_tokens_and_forgotten(account: Account, browser: httpx.Client, hub: str) -> None:
    assert "Variants are published to the service's own Hub" in look(browser, PAGE)
    answer = put(browser, endpoint=f" {hub}/ ", write_token=WRITES)
    assert (answer.status_code, answer.headers["location"]) == (303, PAGE)
    page = look(browser, PAGE)
    assert WRITES not in page
    for told in (f"<code>{hub}</code>", "ends in <code>6789</code>", "by laptop", "the service's", f'value="{hub}"'):
        assert told in page
    assert browser.post(f"{PAGE}/delete", data={"csrf": csrf(browser.get(PAGE))}).headers["location"] == PAGE
    with account.database.read() as session:
        assert hub_credentials.find(session, account.tenant_id) is None
    acts = [(row.action, row.actor) for row in changes(account, "hub_credential")]
    assert acts == [("hub_credential.put", "session"), ("hub_credential.delete", "session")]
    assert browser.post(f"{PAGE}/delete", data={"csrf": csrf(browser.get(PAGE))}).status_code == 404


def test_a_token_that_only_reads_is_refused_at_its_field_and_not_repeated(browser: httpx.Client, hub: str) -> None:
    answer = put(browser, endpoint=hub, write_token=READS, read_token="hf_gated-0123456789")
    assert answer.status_code == 422
    assert re.search(r'id="write_token-fault" class="problem">This token may only read', answer.text)
    assert f'value="{hub}"' in answer.text
    assert READS not in answer.text
    assert "hf_gated" not in answer.text


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"endpoint": "nowhere", "write_token": WRITES}, "endpoint"),
        ({"endpoint": "https://hub.example", "write_token": "short"}, "write_token"),
        ({"endpoint": "https://hub.example", "write_token": WRITES, "read_token": "has a space"}, "read_token"),
    ],
)
def test_what_cannot_be_is_told_at_its_field(browser: httpx.Client, fields: dict[str, str], field: str) -> None:
    answer = put(browser, **fields)
    assert answer.status_code == 422
    assert re.search(rf'id="{field}-fault" class="problem">\w', answer.text)
    assert "has a space" not in answer.text


def test_the_services_own_hub_takes_no_token(dashboard: RunningDashboard, browser: httpx.Client) -> None:
    answer = put(browser, endpoint=f"{dashboard.url}/hub", write_token=WRITES)
    assert re.search(r'id="endpoint-fault"[^>]*>[^<]*own Hub', answer.text)


def test_an_admin_who_signed_in_as_a_person_sets_it(dashboard: RunningDashboard, account: Account, hub: str) -> None:
    with as_member(dashboard, account, Role.ADMIN) as browser:
        assert put(browser, endpoint=hub, write_token=WRITES).status_code == 303
        assert "by Ms Admin" in look(browser, PAGE)
