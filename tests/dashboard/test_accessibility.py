"""Every page in a real browser, light, dark and on a telephone: axe finds nothing, and a picture of each is kept."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from publisher.dashboard.router import create_dashboard
from publisher.dashboard.session import SESSION_COOKIE
from tests.dashboard.chromium import Chromium, chromium
from tests.dashboard.conftest import RunningDashboard
from tests.dashboard.scene import NO_PAGES, PAGES, Scene, furnish

#: where pictures go; nowhere for long without it
PICTURES = "DASHBOARD_SCREENSHOTS"
#: WCAG 2.0, 2.1 and 2.2 at A and AA, and what axe advises besides
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
#: lines of a long table are alike
_CONTEXT = json.dumps({"exclude": [".rows tbody tr:nth-child(n + 26)"]})
_WIDE, _NARROW, _HEIGHT, _HIGHEST = 1280, 360, 800, 4000


def axe_script() -> str:
    """axe-core, as a package for another driver carries it; that one is not imported."""
    found = find_spec("axe_playwright_python")
    assert found is not None, "axe-core is not installed: make test-setup"
    assert found.submodule_search_locations
    return (Path(found.submodule_search_locations[0]) / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def scene(dashboard: RunningDashboard) -> Scene:
    return furnish(dashboard)


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory, dashboard: RunningDashboard, scene: Scene) -> Iterator[Chromium]:
    """Signed in."""
    with chromium(tmp_path_factory.mktemp("chromium")) as window:
        window.emulate(_WIDE, _HEIGHT)
        window.open(f"{dashboard.url}/login")
        window.run(f"document.cookie = '{SESSION_COOKIE}={scene.cookie}; path=/'")
        window.before_every_page(axe_script())
        yield window


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = os.environ.get(PICTURES)
    folder = Path(chosen) if chosen else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def violations(page: Chromium, **only: Any) -> list[str]:
    """What axe finds, each with the elements that it is about."""
    options = json.dumps({"runOnly": only or {"type": "tag", "values": _TAGS}, "resultTypes": ["violations"]})
    found: list[dict[str, Any]] = page.run(f"axe.run({_CONTEXT}, {options}).then(found => found.violations)")
    return [f"{each['id']}: {[node['html'] for node in each['nodes']]}" for each in found]


def contrast(page: Chromium) -> list[str]:
    return violations(page, type="rule", values=["color-contrast"])


@pytest.mark.parametrize("address", PAGES)
def test_page_is_accessible(
    window: Chromium, dashboard: RunningDashboard, scene: Scene, pictures: Path, address: str
) -> None:
    name = re.sub(r"\W+", "-", address).strip("-")
    window.emulate(_WIDE, _HEIGHT, "light")
    window.open(dashboard.url + address.format(**scene.ids))
    found = {"light": violations(window)}
    window.screenshot(pictures / f"{name}.png", _HIGHEST)
    window.emulate(_WIDE, _HEIGHT, "dark")
    found["dark"] = contrast(window)
    window.screenshot(pictures / f"{name}-dark.png", _HIGHEST)
    window.emulate(_NARROW, _HEIGHT, "light")
    found["narrow"] = violations(window)
    assert window.run("document.documentElement.scrollWidth") <= _NARROW, address
    window.screenshot(pictures / f"{name}-phone.png", _HIGHEST)
    assert found == {screen: [] for screen in found}


def test_a_new_key_is_copied_from_a_page_that_is_accessible(
    window: Chromium, dashboard: RunningDashboard, pictures: Path
) -> None:
    window.emulate(_WIDE, _HEIGHT)
    window.open(f"{dashboard.url}/settings/keys")
    window.type("#name", "copied")
    window.click("form button.primary")
    assert window.text("#scopes-fault") == "Tick at least one."
    assert window.run("document.activeElement.name") == "scopes"
    assert violations(window) == []
    window.screenshot(pictures / "settings-keys-refused.png", _HIGHEST)
    window.click("input[value='models:read']")
    window.click("form button.primary")
    window.wait_for("document.querySelector('#secret')")
    assert violations(window) == []
    window.screenshot(pictures / "settings-keys-made.png", _HIGHEST)
    window.click("[data-copy]")
    window.wait_for("document.querySelector('[data-copy]').textContent !== 'Copy'")
    assert window.run("getSelection().toString().trim()") == window.text("#secret")


def test_what_is_wrong_is_found(window: Chromium, dashboard: RunningDashboard) -> None:
    window.open(f"{dashboard.url}/settings/quotas")
    window.run("document.documentElement.removeAttribute('lang')")
    assert [found.partition(":")[0] for found in violations(window)] == ["html-has-lang"]


def test_every_page_is_looked_at() -> None:
    routes = {context.path for context in iter_route_contexts(create_dashboard().routes) if _is_page(context)}
    assert routes - NO_PAGES == set(PAGES.values()) - {""}


def _is_page(context: Any) -> bool:
    return isinstance(context.route, APIRoute) and "GET" in (context.methods or ())
