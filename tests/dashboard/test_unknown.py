"""What goes wrong outside of any page: a page for people, problem details for programs."""

from __future__ import annotations

import gzip

import httpx
import pytest

from publisher.store.database import Database
from tests.dashboard.conftest import RunningDashboard

LOOKING = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize("path", ["/nothing", "/jobs/", "/jobs/job_x/nothing", "/assets/none.css", "/v2"])
def test_unknown_address_is_a_page_for_browsers(browser: httpx.Client, path: str) -> None:
    answer = browser.get(path, headers=LOOKING, follow_redirects=True)
    assert answer.status_code == (200 if path == "/jobs/" else 404)
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_wrong_method_is_a_page_for_browsers(browser: httpx.Client) -> None:
    answer = browser.get("/logout", headers=LOOKING)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert "<h1>Method Not Allowed</h1>" in answer.text


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing", "/hub/nothing"])
def test_unknown_address_is_problem_details_for_programs(browser: httpx.Client, path: str) -> None:
    looking = {} if path == "/nothing" else LOOKING
    answer = browser.get(path, headers=looking)
    assert answer.status_code in {401, 404}
    assert "json" in answer.headers["content-type"]


def test_bug_is_a_page_with_the_number_under_which_it_was_logged(
    dashboard: RunningDashboard, browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(self: Database) -> None:
        raise ValueError("secret detail")

    monkeypatch.setattr(Database, "read", break_off)
    answer = browser.get("/families", headers=LOOKING)
    assert answer.status_code == 500
    assert answer.headers["x-request-id"]
    assert "it has been logged" in answer.text
    assert "secret detail" not in answer.text


def test_pages_and_assets_go_out_packed(dashboard: RunningDashboard, browser: httpx.Client) -> None:
    with browser.stream("GET", "/families", headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == "Accept-Encoding"
    plain = browser.get("/families", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert len(raw) < len(plain.content) / 4
    assert b"families can be pruned" in gzip.decompress(raw)
    asset = browser.get("/assets/dashboard.css", headers={"Accept-Encoding": "gzip"})
    assert asset.headers["content-encoding"] == "gzip"
    assert asset.content == browser.get("/assets/dashboard.css", headers={"Accept-Encoding": "identity"}).content
