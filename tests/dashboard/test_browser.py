"""In a real browser: a job moves on the page while it runs, and a reload loses and doubles nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dashboard.chromium import Chromium, chromium
from tests.dashboard.conftest import RunningDashboard, serve
from tests.dashboard.rows import OUT_OF_DISK, Account, Work, log, metric, progress, stage_event
from tests.dashboard.test_pages import HOSTILE, hostile_job
from tests.servers import wait_until

LINES = "[...document.querySelectorAll('#log li span')].map(line => line.textContent)"
POINTS = "document.querySelector('[data-chart=loss] .line').points.length"
#: of the running stage, in percent
BAR = "parseInt(document.querySelector('#percent').textContent)"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("chromium")) as window:
        window.emulate(390, 844)
        yield window


@pytest.fixture
def signed_in(window: Chromium, dashboard: RunningDashboard, account: Account) -> Iterator[Chromium]:
    window.problems()
    enter(window, dashboard, account)
    yield window
    assert window.problems() == []


def enter(window: Chromium, dashboard: RunningDashboard, account: Account) -> None:
    window.open(f"{dashboard.url}/login")
    window.type("#key", account.key)
    window.click("button.primary")
    window.wait_for("location.pathname === '/overview'")


def aligning(account: Account) -> Work:
    work = account.job().start().stages("fetch", "calibrate", "prune", running="align")
    work.report(*[metric("loss", step, 8 - step / 10) for step in range(1, 21)], log("line 0"), stage="align")
    return work.report(progress("align", 100, 1000), stage="align")


def test_progress_curve_and_log_move_live_and_survive_a_reload(
    signed_in: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    work, page = aligning(account), signed_in
    page.open(f"{dashboard.url}/jobs/{work.job_id}")
    assert page.run(POINTS) == 20
    assert page.run(BAR) == 10
    for round_ in range(1, 5):
        first = 20 * round_ + 1
        told = [metric("loss", step, 8 - step / 20) for step in range(first, first + 20)]
        work.report(*told, log(f"line {round_}"), progress("align", 100 + 200 * round_, 1000), stage="align")
        page.wait_for(f"{POINTS} === {first + 19}")
        page.wait_for(f"{BAR} === {10 + 20 * round_}")
        page.wait_for(f"document.querySelectorAll('#log li').length === {round_ + 1}")
    assert page.text("#amount") == "900 of 1,000 tokens"
    assert "at step 100" in page.text("[data-chart=loss] output")
    page.reload()
    assert page.run(POINTS) == 100
    assert page.run(BAR) == 90
    assert page.run(LINES) == [f"line {number}" for number in range(5)]
    work.report(metric("loss", 101, 1.0), log("line 5"), stage="align")
    page.wait_for(f"{POINTS} === 101")
    page.wait_for("document.querySelectorAll('#log li').length === 6")
    assert page.run(LINES) == [f"line {number}" for number in range(6)]


def test_next_stage_failure_and_way_out_appear_by_themselves(
    signed_in: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    work, page = aligning(account), signed_in
    page.open(f"{dashboard.url}/jobs/{work.job_id}")
    work.report(stage_event("align", "finished", 61.0), stage_event("quantize", "started"), stage="quantize")
    page.wait_for("document.querySelector('.steps [aria-current=step] .stage').textContent === 'quantize'")
    assert "1 min 1 s" in page.text(".steps")
    assert page.run("document.querySelector('#announcement').textContent") == "quantize started"
    work.report(progress("quantize", 3 * 2**20, 12 * 2**20, "bytes"), stage="quantize")
    page.wait_for("document.querySelector('#amount')?.textContent.trim() === '3.0 MiB of 12.0 MiB'")
    assert page.run("document.title").startswith("running")
    work.fail(OUT_OF_DISK)
    page.wait_for("document.querySelector('#status').dataset.state === 'failed'")
    assert page.run("document.title").startswith("failed")
    assert "Free space, then retry." in page.text(".failure")
    page.click(".title button")
    page.wait_for("document.querySelector('#status').dataset.state === 'queued'")
    work.start()
    page.wait_for("document.querySelector('#status').dataset.state === 'running'")


def test_focus_stays_where_the_reader_works(signed_in: Chromium, dashboard: RunningDashboard, account: Account) -> None:
    work, page = aligning(account), signed_in
    page.open(f"{dashboard.url}/jobs/{work.job_id}")
    page.run("document.querySelector('form[action$=cancel] button').focus()")
    work.report(stage_event("align", "finished", 61.0), stage_event("quantize", "started"), stage="quantize")
    page.wait_for("document.querySelector('.steps [aria-current=step] .stage').textContent === 'quantize'")
    assert page.run("document.activeElement.textContent") == "Cancel"
    # which a job that has ended has not
    work.fail(OUT_OF_DISK)
    page.wait_for("document.querySelector('#status').dataset.state === 'failed'")
    assert page.run("document.activeElement.tagName") == "H1"


def test_stage_that_runs_again_redraws_its_curve(
    signed_in: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    work, page = aligning(account), signed_in
    page.open(f"{dashboard.url}/jobs/{work.job_id}")
    work.report(*[metric("loss", step, 4.0) for step in range(11, 31)], stage="align")
    page.wait_for(f"{POINTS} === 30")
    heights = "[...document.querySelector('[data-chart=loss] .line').points].slice(10).map(point => point.y.toFixed(1))"
    page.wait_for(f"new Set({heights}).size === 1")


def test_page_goes_on_after_the_service_was_away(window: Chromium, tmp_path: Path) -> None:
    with serve(tmp_path) as dashboard:
        account = dashboard.account()
        enter(window, dashboard, account)
        work = aligning(account)
        window.open(f"{dashboard.url}/jobs/{work.job_id}")
        window.wait_for("document.querySelectorAll('#log li').length === 1")
    with serve(tmp_path, int(dashboard.url.rpartition(":")[2])) as again:
        work.database = again.database
        work.report(log("line 1"), metric("loss", 21, 6.0), stage="align")
        window.wait_for("document.querySelectorAll('#log li').length === 2")
        assert window.run(LINES) == ["line 0", "line 1"]
        window.wait_for(f"{POINTS} === 21")
        assert window.run("document.querySelector('#connection').hidden")
    window.problems()


def test_eight_tabs_of_one_session_show_live_progress(
    signed_in: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    """A browser opens six connections to a server: were each tab's stream one, the seventh page would not load."""
    work, page = aligning(account), signed_in
    first = page.tab
    tabs = [first, *(page.add_tab() for _ in range(7))]
    for tab in tabs:
        page.tab = tab
        page.open(f"{dashboard.url}/jobs" if tab == tabs[3] else f"{dashboard.url}/jobs/{work.job_id}")
    work.report(progress("align", 400, 1000), log("line 1"), metric("loss", 21, 5.0), stage="align")
    for tab in reversed(tabs):
        page.tab = tab
        if tab == tabs[3]:
            page.wait_for("document.querySelector('#jobs progress').value === 40")
            continue
        page.wait_for(f"{BAR} === 40 && {POINTS} === 21")
        page.wait_for("document.querySelectorAll('#log li').length === 2")
        assert page.run(LINES) == ["line 0", "line 1"]
    for tab in tabs[1:]:
        page.tab = tab
        page.close_tab(then=first)
    # those that are left go on
    work.report(progress("align", 500, 1000), log("line 2"), stage="align")
    page.wait_for(f"{BAR} === 50")
    page.wait_for("document.querySelectorAll('#log li').length === 3")
    assert page.run(LINES) == ["line 0", "line 1", "line 2"]


HIDE = "Object.defineProperty(document, 'hidden', {configurable: true, value: %s})"
SEEN = "document.dispatchEvent(new Event('visibilitychange'))"


def test_where_tabs_cannot_share_a_hidden_one_lets_go_and_catches_up(
    signed_in: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    work, page = aligning(account), signed_in
    script = page.before_every_page("delete window.SharedWorker")
    page.open(f"{dashboard.url}/jobs/{work.job_id}")
    assert page.run("window.SharedWorker === undefined")
    work.report(log("line 1"), stage="align")
    page.wait_for("document.querySelectorAll('#log li').length === 2")
    page.run(f"{HIDE % 'true'} && {SEEN}")
    wait_until(lambda: not dashboard.streams(), "end of the stream")
    work.report(log("line 2"), log("line 3"), stage="align")
    page.run(f"{HIDE % 'false'} && {SEEN}")
    page.wait_for("document.querySelectorAll('#log li').length === 4")
    assert page.run(LINES) == [f"line {number}" for number in range(4)]
    page.forget(script)


def test_a_page_of_a_finished_job_follows_a_retry(
    signed_in: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    work, page = aligning(account).fail(OUT_OF_DISK), signed_in
    page.open(f"{dashboard.url}/jobs/{work.job_id}")
    assert page.run("document.querySelector('#status').dataset.state") == "failed"
    work.retry()
    page.wait_for("document.querySelector('#status').dataset.state === 'queued'")


def test_cancel_asks_first(signed_in: Chromium, dashboard: RunningDashboard, account: Account) -> None:
    work, page = aligning(account), signed_in
    page.open(f"{dashboard.url}/jobs/{work.job_id}")
    page.click(".title button")
    page.accept_question()
    page.wait_for("document.querySelector('#status')?.dataset.state === 'cancelling'")


def test_how_a_test_delivery_ends_shows_by_itself(
    signed_in: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    page = signed_in
    page.open(f"{dashboard.url}/settings/webhooks")
    page.type("#url", "https://receiver.invalid/hook")
    page.click(".form button.primary")
    page.wait_for("document.querySelector('#secret')")
    page.click("a.button[href*=hook_]")
    page.wait_for("document.querySelector('form[action$=test]')")
    page.click("form[action$=test] button")
    page.wait_for(
        "document.querySelector('#tries [data-label=Answer] .muted')?.textContent.includes('receiver.invalid')"
    )
    assert page.text("#tries [data-label=State]") == "pending"


def test_list_follows_without_a_reload(signed_in: Chromium, dashboard: RunningDashboard, account: Account) -> None:
    work, page = aligning(account), signed_in
    page.open(f"{dashboard.url}/jobs")
    work.report(progress("align", 500, 1000), stage="align")
    page.wait_for("document.querySelector('#jobs progress').value === 50")
    work.fail(OUT_OF_DISK)
    page.wait_for("document.querySelector('#jobs .badge').dataset.state === 'failed'")


def test_hostile_log_line_runs_nothing(signed_in: Chromium, dashboard: RunningDashboard, account: Account) -> None:
    work, page = hostile_job(account), signed_in
    page.open(f"{dashboard.url}/jobs/{work.job_id}")
    work.report(log(HOSTILE), metric(HOSTILE, 2, 2.0), progress("align", 2, 2, HOSTILE), stage="align")
    page.wait_for("document.querySelectorAll('#log li').length === 2")
    assert page.run(LINES) == [HOSTILE, HOSTILE]
    assert page.run("document.querySelectorAll('main img, main script').length") == 0


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_page_scrolls_sideways(
    signed_in: Chromium, dashboard: RunningDashboard, account: Account, tmp_path: Path, width: int
) -> None:
    work, page = hostile_job(account), signed_in
    long = account.job("organisation/" + "a-rather-long-name-" * 8)
    page.emulate(width, 844)
    for path in ("/jobs", "/variants", "/base-models", f"/jobs/{work.job_id}", f"/variants/{long.variant_id}"):
        page.open(dashboard.url + path)
        assert page.run("document.documentElement.scrollWidth") <= width, path
    page.emulate(390, 844)
