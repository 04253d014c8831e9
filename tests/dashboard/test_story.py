"""One story in a real browser, with two tenants: order, watch, pause, cancel, retry, compare, download.

The worker's part is played by the functions that workers call, so that it waits for nobody.
"""

from __future__ import annotations

from publisher.architecture.masks_file import FILE_NAME
from tests.api.conftest import write_corpus
from tests.dashboard.chromium import Chromium
from tests.dashboard.conftest import RunningDashboard
from tests.dashboard.results import masks, publish_as, smaller
from tests.dashboard.rows import Account, Work, log, metric, progress, stage_event
from tests.dashboard.test_browser import enter
from tests.dashboard.test_order_browser import replace

STATE = "document.querySelector('#status')?.dataset.state"


def order(page: Chromium, account: Account, name: str) -> Work:
    """From the form of a new variant, which is open, to the queued job's page."""
    replace(page, "publish.repo_id", f"{account.name}/{name}")
    page.wait_for("document.querySelector('#plan-state').textContent === 'Planned.'")
    page.click("button[value=submit].primary")
    page.wait_for("location.pathname.startsWith('/jobs/job_')")
    assert page.run(STATE) == "queued"
    variant_id = str(page.run("document.querySelector('h1 a').pathname.split('/').pop()"))
    return Work(account.database, str(page.run("location.pathname.split('/').pop()")), variant_id)


def begin_aligning(work: Work) -> None:
    work.start().stages("fetch", "calibrate", "prune", running="align")
    work.report(progress("align", 100, 1000), metric("loss", 1, 4.0), log("aligning"), stage="align")


def press(page: Chromium, action: str, *, asks: bool = False) -> None:
    """The button of this form on a job's page."""
    page.click(f"form[action$='/{action}'] button")
    if asks:
        page.accept_question()


def test_from_an_order_to_a_download_and_nobody_else_sees_it(window: Chromium, dashboard: RunningDashboard) -> None:
    account, page = dashboard.account(), window
    base = account.base_model()
    account.corpus("classics", write_corpus(dashboard.corpora / f"{account.name}.jsonl", 200, 3000))
    enter(page, dashboard, account)
    page.problems()

    # order, and watch it begin
    page.open(f"{dashboard.url}/variants/new?base_model={base}")
    work = order(page, account, "first")
    begin_aligning(work)
    page.wait_for(f"{STATE} === 'running' && document.querySelectorAll('#log li').length === 1")

    # pause: the worker stops, and goes on after resume
    press(page, "pause")
    page.wait_for(f"{STATE} === 'pausing'")
    work.release()
    page.wait_for(f"{STATE} === 'paused'")
    press(page, "resume")
    page.wait_for(f"{STATE} === 'queued'")
    begin_aligning(work)
    page.wait_for(f"{STATE} === 'running'")

    # cancel asks; retry begins again
    press(page, "cancel", asks=True)
    page.wait_for(f"{STATE} === 'cancelling'")
    work.stop()
    page.wait_for(f"{STATE} === 'cancelled'")
    press(page, "retry")
    page.wait_for(f"{STATE} === 'queued'")
    begin_aligning(work)
    work.report(stage_event("align", "finished", 60.0), stage="align")
    publish_as(dashboard, account, work, "first", {FILE_NAME: masks()}, smaller(100_000_000, 60.0))
    page.wait_for(f"{STATE} === 'succeeded'")

    # the result, and another like it
    page.click(".result a[href^='/variants/']")
    page.wait_for("location.pathname.startsWith('/variants/var_')")
    assert page.text("h1") == f"{account.name}/first"
    page.click("a[href*='like=']")
    page.wait_for("location.pathname === '/variants/new'")
    replace(page, "recipe.pruning.ratio", "0.3")
    page.wait_for("JSON.parse(document.querySelector('#f-json').value).pruning.ratio === 0.3")
    second = order(page, account, "second").start()
    publish_as(dashboard, account, second, "second", {FILE_NAME: masks()}, smaller(80_000_000, 64.0))
    page.wait_for(f"{STATE} === 'succeeded'")

    # compare, by what is ticked on the list
    page.open(f"{dashboard.url}/variants")
    for box in (1, 2):
        page.click(f"tbody tr:nth-child({box}) input[type=checkbox]")
    page.click("#compare button")
    page.wait_for("location.pathname === '/compare'")
    assert page.run("document.querySelectorAll('.plot a').length") == 2
    assert "pruning ratio" in page.text("#results").lower()

    # download, with the session
    page.open(f"{dashboard.url}/variants/{work.variant_id}")
    address = str(page.run(f"document.querySelector('a[href$=\"{FILE_NAME}\"]').href"))
    got = page.run(f"fetch('{address}').then(answer => answer.arrayBuffer()).then(bytes => bytes.byteLength)")
    assert got == len(masks())
    assert page.problems() == []

    # another tenant sees none of it
    other = dashboard.account()
    pages = [f"/jobs/{work.job_id}", f"/jobs/{work.job_id}/log.txt", f"/variants/{second.variant_id}", address]
    with dashboard.signed_in(other) as browser:
        for path in (
            *pages,
            f"/base-models/{base}",
            f"/compare?v={work.variant_id}",
            f"/variants/new?like={work.variant_id}",
        ):
            assert browser.get(path).status_code == 404, path
        for path in ("/overview", "/jobs", "/variants", "/base-models", "/corpora", "/sweeps", "/repositories"):
            assert account.name not in browser.get(path).text, path
