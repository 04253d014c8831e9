"""A job's page in a real browser: its bar, its charts, its log, and what it shows after the service was away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.jobs.events import NewEvent
from publisher.store.states import EventKind
from tests.dashboard.chromium import Chromium
from tests.dashboard.conftest import RunningDashboard, serve
from tests.dashboard.rows import OUT_OF_DISK, Account, Work, log, metric, progress, stage_event
from tests.dashboard.test_browser import LINES, enter
from tests.dashboard.test_job_page import alike, whole

STATE = "document.querySelector('#status').dataset.state"
STEP = "document.querySelector('.steps [aria-current=step] .stage')?.textContent"
SHARE = "document.querySelector('#whole').value"
VISIBLE = "[...document.querySelectorAll('#log li:not([hidden]) span')].map(line => line.textContent)"


@pytest.fixture
def page(window: Chromium, dashboard: RunningDashboard, account: Account) -> Iterator[Chromium]:
    window.problems()
    enter(window, dashboard, account)
    yield window
    assert window.problems() == []


def aligning(work: Work) -> Work:
    work.start().stages("fetch", "calibrate", "prune", running="align")
    return work.report(progress("align", 100, 1000), stage="align")


def test_the_bar_of_the_whole_job_goes_on_and_never_back(
    page: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    for _ in range(3):
        whole(account, 5.0)
    work = aligning(alike(account))
    page.open(f"{dashboard.url}/jobs/{work.job_id}")
    page.wait_for("document.querySelector('#left').textContent.endsWith('left')")
    page.run("advance(60)")
    assert page.run(SHARE) == 60
    # another unit begins: what the server says of this is less
    work.report(progress("align", 1, 9, "layers"), stage="align")
    page.wait_for("document.querySelector('#amount').textContent === '1 of 9 layers'")
    assert page.run(SHARE) == 60
    page.run("reckon()")
    page.wait_for("document.querySelector('#share').textContent === '60 %'")


def test_several_lines_of_a_chart_grow_by_themselves_and_are_smoothed_if_asked(
    page: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    work = aligning(account.job())
    work.report(*[metric("loss", step, 8 - step / 10) for step in range(1, 26)], metric("held_out_loss", 8, 7.5))
    page.open(f"{dashboard.url}/jobs/{work.job_id}")
    points = "document.querySelector('.line[data-series=%s]').points.length"
    work.report(metric("loss", 26, 5.0), metric("held_out_loss", 16, 7.0), stage="align")
    page.wait_for(f"{points % 'loss'} === 26 && {points % 'held_out_loss'} === 2")
    assert page.text("[data-chart=loss] output") == "training 5 at step 26 · held out 7 at step 16"
    assert page.run("document.querySelectorAll('.smooth').length") == 0
    page.run(
        "(document.querySelector('#smoothing').value = '0.9',"
        "document.querySelector('#smoothing').dispatchEvent(new Event('change', {bubbles: true})))"
    )
    assert page.run("document.querySelectorAll('.smooth').length") == 1
    page.reload()
    assert page.run("document.querySelector('#smoothing').value") == "0.9"
    work.report(metric("loss", 27, 5.0), stage="align")
    page.wait_for("document.querySelector('.smooth').points.length === 27")
    # a value beyond the axes: the server draws anew, and the choice counts
    work.report(metric("loss", 28, 50.0), stage="align")
    page.wait_for(f"{points % 'loss'} === 28 && document.querySelector('.smooth')?.points.length === 28")
    page.run("localStorage.clear()")


def test_perplexity_of_each_model_appears_by_itself(
    page: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    work = account.job().start().stages(running="evaluate")
    page.open(f"{dashboard.url}/jobs/{work.job_id}")
    work.report(metric("perplexity", 1, 7.5), metric("perplexity/base/novel", 1, 7.5), stage="evaluate")
    page.wait_for("document.querySelector('.perplexity td')?.textContent === '7.50'")
    assert page.run("document.querySelector('[data-chart=perplexity]')") is None


def test_lines_of_the_log_are_found_while_typing_and_new_ones_too(
    page: Chromium, dashboard: RunningDashboard, account: Account
) -> None:
    def said(message: str, stage: str) -> NewEvent:
        return NewEvent(EventKind.LOG, {"message": message, "stage": stage})

    work = account.job().start().report(said("a whale", "fetch"), said("a ship", "fetch"))
    page.open(f"{dashboard.url}/jobs/{work.job_id}")
    page.type("#q", "WHALE")
    assert page.run(VISIBLE) == ["a whale"]
    work.report(said("a shark", "align"), said("another whale", "align"))
    page.wait_for("document.querySelectorAll('#log li').length === 4")
    assert page.run(VISIBLE) == ["a whale", "another whale"]
    assert page.run("[...document.querySelectorAll('#log [data-begins]')].map(line => line.dataset.begins)") == [
        "fetch",
        "align",
    ]
    page.click(".search button")
    page.wait_for("location.search === '?q=WHALE'")
    assert page.run(LINES) == ["a whale", "another whale"]


def test_delete_asks_first_and_leads_to_the_list(page: Chromium, dashboard: RunningDashboard, account: Account) -> None:
    work = aligning(account.job()).fail(OUT_OF_DISK)
    page.open(f"{dashboard.url}/jobs/{work.job_id}")
    page.click("form[action$=delete] button")
    page.accept_question()
    page.wait_for("location.pathname === '/jobs'")


def test_state_is_true_after_the_service_was_away(window: Chromium, tmp_path: Path) -> None:
    """What happened meanwhile is there afterwards, and what happens next comes by itself."""
    with serve(tmp_path) as dashboard:
        account = dashboard.account()
        enter(window, dashboard, account)
        work = aligning(account.job())
        window.open(f"{dashboard.url}/jobs/{work.job_id}")
        window.wait_for(f"{STEP} === 'align'")
    with serve(tmp_path, int(dashboard.url.rpartition(":")[2])) as again:
        work.database = again.database
        work.report(stage_event("align", "finished", 9.0), stage_event("quantize", "started"), log("meanwhile"))
        window.wait_for(f"{STEP} === 'quantize'")
        window.wait_for("document.querySelectorAll('#log li').length === 1")
        assert "9.0 s" in window.text("#timeline")
        work.fail(OUT_OF_DISK)
        window.wait_for(f"{STATE} === 'failed'")
        assert "Free space, then retry." in window.text(".failure")
        assert window.run("document.querySelector('#connection').hidden")
    window.problems()
