"""Pages of variants that other versions of the service stored."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.dashboard.rows import Account, Work, manifest
from tests.dashboard.test_pages import csrf, look
from tests.recipe.history import HISTORY, NEWER, REMOVED, UNREADABLE, Stored

FOREIGN = [UNREADABLE, REMOVED, NEWER]


def job_of(account: Account, stored: Stored, base: str | None = None) -> Work:
    columns = {"recipe": stored.recipe, "recipe_version": stored.version}
    return account.job(f"org/of-{stored.version}", base, stored=columns)


def test_recipes_of_every_version_have_pages(account: Account, browser: httpx.Client) -> None:
    base = account.base_model()
    works = [job_of(account, stored, base) for stored in [*HISTORY, *FOREIGN]]
    count, path = 0, "/variants"
    while path:
        page = look(browser, path)
        count += len(re.findall(r'class="name" href="/variants/', page))
        older = re.search(r'href="(/variants\?cursor=[^"]+)" rel="next"', page)
        path = older[1] if older else ""
    assert count == len(works)
    for work in works:
        look(browser, f"/variants/{work.variant_id}")
        look(browser, f"/jobs/{work.job_id}")


@pytest.mark.parametrize("stored", FOREIGN, ids=["combination of before", "field that is no more", "newer version"])
def test_recipe_that_cannot_be_read_is_shown_as_such_and_not_retried(
    account: Account, browser: httpx.Client, stored: Stored
) -> None:
    work = job_of(account, stored).cancel()
    assert "recipe of another version" in look(browser, "/variants")
    page = look(browser, f"/variants/{work.variant_id}")
    assert "This recipe was written by another version: " in page
    assert '"calibration"' in page  # what was stored, as JSON
    assert "(planned)" not in page
    address = f"/jobs/{work.job_id}"
    refused = browser.post(f"{address}/retry", data={"csrf": csrf(browser.get(address))})
    assert refused.status_code == 409
    assert "this recipe was written by another version: " in refused.text


def test_manifest_of_a_version_to_come_is_said_to_be_unreadable(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().succeed(manifest() | {"format_version": "3.0"})
    page = look(browser, f"/variants/{work.variant_id}")
    assert "has format_version 3.0; this version reads up to 2.x. Upgrade" in page
    assert "succeeded" in look(browser, "/variants")


def test_manifest_of_the_first_version_is_shown(account: Account, browser: httpx.Client) -> None:
    first = manifest() | {"format_version": "1.0"}
    work = account.job().start().succeed(first | {"base_widths": first["base_widths"][0]})
    assert "Certificate: adapters carry over" in look(browser, f"/variants/{work.variant_id}")
