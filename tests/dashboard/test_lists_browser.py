"""Lists and the overview in a real browser: lines follow alone, and a page says when it is not kept up to date."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.dashboard.chromium import Chromium, chromium
from tests.dashboard.conftest import RunningDashboard, serve
from tests.dashboard.results import sweep, sweep_id
from tests.dashboard.rows import OUT_OF_DISK, Account, progress
from tests.dashboard.test_browser import aligning, enter
from tests.dashboard.test_pages import hostile_job

#: waiting takes a twentieth of its time, and the page counts its seconds
HURRY = """
const later = window.setTimeout, every = window.setInterval;
window.setTimeout = (what, time, ...more) => later(what, time / 20, ...more);
window.seconds = 0;
every(() => { window.seconds += 1; }, 1000);
"""
NOTICE = "#connection:not([hidden])"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("chromium")) as window:
        window.emulate(1280, 777)
        yield window


@pytest.fixture
def signed_in(window: Chromium, dashboard: RunningDashboard, account: Account) -> Chromium:
    enter(window, dashboard, account)
    return window


@pytest.fixture
def hurried(window: Chromium) -> Iterator[Chromium]:
    """Its first tab does not wait for long."""
    script = window.before_every_page(HURRY)
    yield window
    window.forget(script)


def test_only_the_line_of_a_job_that_reports_is_taken_anew(
    signed_in: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    work, other, page = aligning(account), aligning(account), signed_in
    page.open(f"{dashboard.url}/jobs")
    page.run("document.querySelector('#jobs table').kept = true")
    page.run(f"document.getElementById('{other.job_id}').kept = true")
    page.run(f"document.querySelector('#{work.job_id} a').focus()")
    work.report(progress("align", 500, 1000), stage="align")
    page.wait_for(f"document.querySelector('#{work.job_id} progress').value === 50")
    assert page.run("document.querySelector('#jobs table').kept") is True
    assert page.run(f"document.getElementById('{other.job_id}').kept") is True
    assert page.run(f"document.activeElement.closest('tr').id === '{work.job_id}'")
    assert page.problems() == []


def test_list_of_one_state_lets_go_of_a_job_and_takes_a_new_one(
    hurried: Chromium, signed_in: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    work, page = aligning(account), signed_in
    page.open(f"{dashboard.url}/jobs?state=failed")
    assert "No job is like that." in page.text("#jobs")
    work.fail(OUT_OF_DISK)
    page.wait_for(f"document.getElementById('{work.job_id}') !== null")
    assert page.text("#states [aria-current]") == "Failed 1"
    work.retry()
    page.wait_for(f"document.getElementById('{work.job_id}') === null")


def test_overview_follows(
    hurried: Chromium, signed_in: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    work, page = aligning(account), signed_in
    page.open(f"{dashboard.url}/overview")
    work.report(progress("align", 750, 1000), stage="align")
    page.wait_for("document.querySelector('#running progress').value === 75")
    work.fail(OUT_OF_DISK)
    page.wait_for("document.querySelector('#attention').innerText.includes('Free space, then retry.')")
    assert page.text("#running p") == "No job runs."
    assert page.problems() == []


def open_live(page: Chromium, dashboard: RunningDashboard, account: Account) -> dict[str, str]:
    """Every page that follows, each in a tab of its own; its path by its tab. They do not wait for long."""
    running, swept = aligning(account), sweep(dashboard, account)
    tabs = {}
    for path in ("/overview", "/jobs?state=running", f"/jobs/{running.job_id}", f"/sweeps/{sweep_id(swept[0])}"):
        page.tab = page.add_tab()
        page.before_every_page(HURRY)
        page.open(dashboard.url + path)
        assert page.run("document.querySelector('#connection').hidden"), path
        tabs[page.tab] = path
    return tabs


def close(page: Chromium, tabs: Iterable[str], first: str) -> None:
    for tab in tabs:
        page.tab = tab
        page.problems()
        page.close_tab(then=first)


def test_every_live_page_says_that_the_service_is_away_until_it_is_back(window: Chromium, tmp_path: Path) -> None:
    page, first = window, window.tab
    with serve(tmp_path) as dashboard:
        account = dashboard.account()
        enter(page, dashboard, account)
        tabs = open_live(page, dashboard, account)
    counting = {}
    for tab in tabs:
        page.tab = tab
        page.wait_for(f"document.querySelector('{NOTICE}')?.innerText.startsWith('Not connected since')")
        counting[tab] = page.run("document.querySelector('[data-since]')?.innerText ?? null")
        page.run("window.seconds = 0")
    for tab in tabs:
        page.tab = tab
        page.wait_for("window.seconds >= 2")
        assert page.run("document.querySelector('[data-since]')?.innerText ?? null") == counting[tab]
    with serve(tmp_path, int(dashboard.url.rpartition(":")[2])):
        for tab in tabs:
            page.tab = tab
            page.wait_for("document.querySelector('#connection').hidden")
            if counting[tab] is not None:
                page.wait_for(f"document.querySelector('[data-since]').innerText !== '{counting[tab]}'")
    close(page, tabs, first)


def test_a_page_that_has_no_stream_left_says_so_and_goes_on_when_one_is_free(hurried: Chromium, tmp_path: Path) -> None:
    page = hurried
    with serve(tmp_path, event_streams_per_tenant=1) as dashboard:
        account = dashboard.account()
        aligning(account)
        enter(page, dashboard, account)
        page.open(f"{dashboard.url}/families")
        key = {"Authorization": f"Bearer {account.key}"}
        with httpx.Client(base_url=dashboard.url, headers=key) as client, client.stream("GET", "/v1/events") as other:
            lines = other.iter_lines()
            next(lines)
            page.open(f"{dashboard.url}/jobs")
            page.wait_for(f"document.querySelector('{NOTICE}')?.innerText.includes('too many pages and event streams')")
        page.wait_for("document.querySelector('#connection').hidden")
        page.problems()


def test_every_live_page_says_that_the_session_is_over(
    signed_in: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    page, first = signed_in, signed_in.tab
    tabs = open_live(page, dashboard, account)
    page.tab = first
    page.open(f"{dashboard.url}/families")
    page.click(".who button")
    page.wait_for("location.pathname === '/login'")
    for tab, path in tabs.items():
        page.tab = tab
        page.wait_for(f"document.querySelector('{NOTICE}')?.innerText.startsWith('You are signed out')")
        page.click("#connection a")
        page.wait_for("location.pathname === '/login'")
        assert page.run("document.querySelector('[name=next]').value") == path
    close(page, tabs, first)


@pytest.mark.parametrize("width", [320, 360, 1280])
def test_no_list_scrolls_sideways(
    signed_in: Chromium, dashboard: RunningDashboard, account: Account, width: int
) -> None:
    page = signed_in
    hostile_job(account)
    account.job("organisation/" + "a-rather-long-name-" * 8).start("w" * 90).fail(OUT_OF_DISK)
    page.emulate(width, 777)
    for path in ("/overview", "/jobs?worker=x&q=" + "y" * 90, "/jobs", "/variants", "/base-models", "/families"):
        page.open(dashboard.url + path)
        assert page.run("document.documentElement.scrollWidth") <= width, path
    page.emulate(1280, 777)
    assert page.problems() == []


def test_a_page_of_jobs_fits_a_laptops_screen(
    signed_in: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    base = account.base_model()
    for number in range(26):
        account.job(f"org/v{number:02}", base)
    page = signed_in
    for path in ("/jobs", "/variants"):
        page.open(dashboard.url + path)
        header = page.run("document.querySelector('header.top').offsetHeight")
        assert page.run("document.querySelector('.rows').getBoundingClientRect().bottom") <= 720 + header
