"""Results' pages in a browser: a command is copied, variants are chosen, a sweep goes on, nothing scrolls sideways."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from publisher.architecture.masks_file import FILE_NAME as MASKS
from tests.dashboard.chromium import Chromium, chromium
from tests.dashboard.conftest import RunningDashboard
from tests.dashboard.results import masks, measured, publish, smaller, sweep, sweep_id
from tests.dashboard.rows import Account
from tests.dashboard.test_browser import enter
from tests.dashboard.test_compare import address

CLIPBOARD = (
    "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => { window.copied = text; }}})"
)


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def page(window: Chromium, dashboard: RunningDashboard, account: Account) -> Iterator[Chromium]:
    """Signed in; whatever the browser complains of fails the test."""
    enter(window, dashboard, account)
    window.problems()
    yield window
    assert window.problems() == []


def test_a_command_is_copied_as_it_stands(page: Chromium, dashboard: RunningDashboard, account: Account) -> None:
    work = account.job().start().succeed(measured())
    script = page.before_every_page(CLIPBOARD)
    page.open(f"{dashboard.url}/variants/{work.variant_id}")
    shown = page.run("document.querySelector('.copyable code').textContent")
    page.click(".copyable .copy")
    page.wait_for("document.querySelector('.copyable .copy').textContent === 'Copied'")
    assert page.run("window.copied") == shown == "export HF_ENDPOINT=https://hub.example"
    page.forget(script)


def test_two_variants_are_chosen_on_the_list(page: Chromium, dashboard: RunningDashboard, account: Account) -> None:
    for name in ("org/a", "org/b"):
        account.job(name).start().succeed(measured())
    page.open(f"{dashboard.url}/variants")
    assert page.run("document.querySelector('#compare button').disabled")
    for place in (1, 2):
        page.click(f"tbody tr:nth-child({place}) input")
    assert page.text("#compare button") == "Compare 2 variants"
    page.click("#compare button")
    page.wait_for("location.pathname === '/compare' && document.querySelectorAll('.plot a').length === 2")


def test_a_sweep_s_page_follows_its_jobs(page: Chromium, dashboard: RunningDashboard, account: Account) -> None:
    works = sweep(dashboard, account)
    page.open(f"{dashboard.url}/sweeps/{sweep_id(works[0])}")
    assert page.run("document.querySelector('#ended').value") == 0
    works[0].start().succeed(smaller(100_000_000, 60.0))
    page.wait_for("document.querySelector('#ended').value === 1 && document.querySelectorAll('.plot a').length === 1")


@pytest.mark.parametrize("width", [320, 1280])
def test_no_page_of_results_scrolls_sideways(
    page: Chromium, dashboard: RunningDashboard, account: Account, width: int
) -> None:
    work = publish(dashboard, account, {MASKS: masks(), "model.sig": b"{}"})
    long = account.job("organisation/" + "a-rather-long-name-" * 8).start().succeed(smaller(10**8, 60.0))
    works = sweep(dashboard, account)
    page.emulate(width, 844)
    paths = [f"/variants/{work.variant_id}", f"/variants/{work.variant_id}/delete", f"/variants/{long.variant_id}"]
    paths += [address([work, long, *works]), "/sweeps", f"/sweeps/{sweep_id(works[0])}"]
    for path in paths:
        page.open(dashboard.url + path)
        assert page.run("document.documentElement.scrollWidth") <= width, path
    page.emulate(390, 844)
