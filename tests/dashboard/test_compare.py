"""Variants beside each other, by choice and of a base model; sweeps."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import httpx
import pytest

from publisher.keys.scopes import Scope
from publisher.recipe import Recipe
from publisher.store.models import Sweep, Variant
from tests.dashboard.conftest import RunningDashboard, csrf, sign_in
from tests.dashboard.results import measured, smaller, sweep, sweep_id
from tests.dashboard.rows import OUT_OF_DISK, RECIPE, Account, Work
from tests.dashboard.test_pages import HOSTILE, look
from tests.dashboard.test_variant_page import delete, key_with
from tests.manifest import contents


@pytest.fixture
def works(account: Account) -> list[Work]:
    """Three that were measured, of which the middle one is beaten, and one that is planned."""
    base = account.base_model()
    done = [(100_000_000, 60.0), (90_000_000, 66.0), (80_000_000, 64.0)]
    found = [
        account.job(f"org/v{number}", base).start().succeed(smaller(parameters, recovered, bytes))
        for number, ((parameters, recovered), bytes) in enumerate(zip(done, (9 << 20, 8 << 20, 7 << 20), strict=True))
    ]
    seven = Recipe.model_validate(RECIPE.model_dump() | {"seed": 7})
    return [*found, account.job("org/planned", base, recipe=seven)]


def address(works: list[Work], **choice: str) -> str:
    return f"/compare?{urlencode([('v', work.variant_id) for work in works] + [*choice.items()])}"


def order(page: str) -> list[str]:
    return re.findall(r'<th scope="row"><a class="name" href="/variants/\w+">org/(\w+)</a>', page)


def test_chosen_variants_stand_beside_each_other(browser: httpx.Client, works: list[Work]) -> None:
    page = look(browser, address(works))
    assert order(page) == ["v0", "v1", "v2", "planned"]
    for told in ("100.0 M", "1.35 ×", "9.0 MiB", "75 %", "76.60", "60.00"):
        assert told in page
    assert "1 of 4 has not been measured so, and is not in the plot." in page


def test_the_front_is_marked_in_plot_and_table(browser: httpx.Client, works: list[Work]) -> None:
    page = look(browser, address(works))
    assert re.findall(r'<a href="/variants/\w+" class="(\w+)" aria-label="org/(\w+): reduction', page) == [
        ("front", "v0"),
        ("behind", "v1"),
        ("front", "v2"),
    ]
    assert page.count("on the Pareto front") == 2
    page = look(browser, address(works, x="bytes", y="recovered"))
    assert "bytes 9.0 MiB, recovered perplexity 60.00" in page
    assert "Perplexity of the base model with a recovered LoRA against bytes" in page


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("parameters", ["v2", "planned", "v1", "v0"]),
        ("-recovered", ["v1", "v2", "v0", "planned"]),
        ("gain_retained", ["v1", "v2", "v0", "planned"]),
        ("name", ["planned", "v0", "v1", "v2"]),
        ("verdict", ["v0", "v1", "v2", "planned"]),
    ],
)
def test_columns_sort_and_what_is_not_known_comes_last(
    browser: httpx.Client, works: list[Work], sort: str, expected: list[str]
) -> None:
    page = look(browser, address(works, sort=sort))
    assert order(page) == expected
    assert f'aria-sort="{"descending" if sort.startswith("-") else "ascending"}"' in page


def test_a_column_s_head_turns_its_order_round_and_keeps_the_rest(browser: httpx.Client, works: list[Work]) -> None:
    page = look(browser, address(works, sort="bytes", x="bytes"))
    link = re.search(r'aria-sort="ascending"><a href="([^"]+)">Bytes', page)
    assert link is not None
    assert "sort=-bytes" in link[1]
    assert "x=bytes" in link[1]
    assert order(look(browser, link[1])) == ["planned", "v0", "v1", "v2"]


def test_what_was_not_measured_alike_is_told(account: Account, browser: httpx.Client, works: list[Work]) -> None:
    report = contents.evaluation() | {"held_out_tokens": {"novel": 2048}}
    shorter = account.job("org/shorter").start().succeed(measured(evaluation=report))
    assert "They were not measured alike" not in look(browser, address(works))
    assert "They were not measured alike" in look(browser, address([works[0], shorter]))


def test_only_what_recipes_differ_in_is_told(browser: httpx.Client, works: list[Work]) -> None:
    page = look(browser, address([works[0], works[3]]))
    told = page[page.index('id="differences"') :]
    assert re.findall(r'<th scope="row">([^<]+)</th>', told) == ["seed"]
    assert re.findall(r'class="number">([^<]+)</td>', told) == ["0", "7"]
    assert "Nothing: their recipes are the same." in look(browser, address(works[:2]))


def test_a_part_that_one_recipe_lacks_is_a_difference(
    account: Account, browser: httpx.Client, works: list[Work]
) -> None:
    lacks = account.job("org/lacks", recipe=Recipe.model_validate(RECIPE.model_dump() | {"alignment": None}))
    page = look(browser, address([works[0], lacks]))
    told = page[page.index('id="differences"') :]
    row = re.search(r'<th scope="row">alignment</th>(.+?)</tr>', told)
    assert row is not None
    assert re.findall(r'class="number">([^<]+)</td>', row[1]) == ["yes", "none"]
    assert '<th scope="row">alignment tokens</th>' in told


def test_all_variants_of_a_base_model_are_compared_from_its_page(
    account: Account, browser: httpx.Client, works: list[Work]
) -> None:
    with account.database.read() as session:
        base = session.get_one(Variant, works[0].variant_id).base_model_id
    account.job("org/other")
    assert f'href="/compare?base_model={base}"' in browser.get(f"/base-models/{base}").text
    assert order(look(browser, f"/compare?base_model={base}")) == ["planned", "v2", "v1", "v0"]


def test_what_cannot_be_compared_is_said(account: Account, browser: httpx.Client, works: list[Work]) -> None:
    other = account.job("org/other").start().succeed(measured())
    page = look(browser, address([works[0], other]))
    assert "They are of different base models." in page
    assert "Choose two or more" in look(browser, "/compare")


@pytest.mark.parametrize("choice", ["sort=nonsense", "x=colour", "y=", "v=" + "x" * 65, "base_model=base_none"])
def test_nonsense_is_no_page(browser: httpx.Client, choice: str) -> None:
    assert browser.get(f"/compare?{choice}").status_code == 404


def test_variants_of_others_are_not_there(dashboard: RunningDashboard, works: list[Work]) -> None:
    other = dashboard.account()
    with dashboard.signed_in(other) as stranger:
        own = other.job("org/own")
        assert stranger.get(address(works)).status_code == 404
        assert stranger.get(address([own, works[0]])).status_code == 404
        assert stranger.get(address([own])).status_code == 200


def test_hostile_names_stay_text_beside_each_other(account: Account, browser: httpx.Client) -> None:
    works = [account.job(HOSTILE, account.base_model(HOSTILE)).start().succeed(measured()) for _ in range(2)]
    page = browser.get(address(works)).text
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert "<img src=x" not in page


def test_hostile_sweeps_stay_text(account: Account, browser: httpx.Client) -> None:
    request = {
        "base_model_id": account.base_model(HOSTILE),
        "recipe": RECIPE.model_dump(mode="json"),
        "vary": {"pruning.ratio": [HOSTILE, {"a": HOSTILE}]},
        "publish": {"repo_id": "org/{n}"},
        "labels": {"team": HOSTILE},
    }
    with account.database.write() as session:
        row = Sweep(tenant_id=account.tenant_id, request=request, request_digest="0" * 64)
        session.add(row)
        session.flush()
        id = row.id
    for path in ("/sweeps", f"/sweeps/{id}"):
        page = browser.get(path).text
        assert "&lt;script&gt;" in page
        assert "<script>" not in page
        assert "<img src=x" not in page


def test_a_sweep_s_page_shows_how_far_it_is_and_its_variants(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    works = sweep(dashboard, account)
    works[0].start().succeed(smaller(100_000_000, 60.0))
    works[1].start().stages(running="prune").fail(OUT_OF_DISK)
    page = look(browser, f"/sweeps/{sweep_id(works[0])}")
    for told in ("Sweep of pruning ratio", "0.25, 0.5, 0.75", "2 of 3", "1 queued", "1 succeeded", "1 failed"):
        assert told in page
    assert re.findall(r'data-label="pruning ratio" class="number varied">([^<]+)<', page) == ["0.25", "0.5", "0.75"]
    assert "study: ratios" in page
    listed = look(browser, "/sweeps")
    assert f'href="/sweeps/{sweep_id(works[0])}">pruning ratio</a>' in listed
    assert "2 of 3 ended" in listed
    assert f'href="/sweeps/{sweep_id(works[0])}"' in browser.get(f"/variants/{works[0].variant_id}").text


def test_a_sweep_is_cancelled_and_deleted_when_its_variants_are(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    works = sweep(dashboard, account)
    path = f"/sweeps/{sweep_id(works[0])}"
    token = {"csrf": csrf(browser.get(path))}
    assert browser.post(f"{path}/cancel").status_code == 403  # no form of this session
    assert browser.post(f"{path}/cancel", data=token).headers["location"] == path
    page = look(browser, path)
    assert "3 cancelled" in page
    assert "Cancel all jobs" not in page
    assert browser.post(f"{path}/delete", data=token).status_code == 409
    for work in works:
        assert delete(browser, work).headers["location"] == path
    page = look(browser, path)
    assert "All of its variants were deleted." in page
    assert f'action="{path}/delete"' in page
    assert browser.post(f"{path}/delete", data=token).headers["location"] == "/sweeps"
    assert browser.get(path).status_code == 404
    assert "Nothing here yet" in look(browser, "/sweeps")


def test_a_sweep_of_others_is_not_there_and_readers_cannot_end_it(
    dashboard: RunningDashboard, account: Account
) -> None:
    path = f"/sweeps/{sweep_id(sweep(dashboard, account)[0])}"
    with dashboard.signed_in(dashboard.account()) as stranger:
        token = {"csrf": csrf(stranger.get("/jobs"))}
        assert stranger.get(path).status_code == 404
        assert stranger.post(f"{path}/cancel", data=token).status_code == 404
        assert stranger.post(f"{path}/delete", data=token).status_code == 404
        assert path not in stranger.get("/sweeps").text
    with dashboard.browser() as reader:
        sign_in(reader, key_with(account, Scope.MODELS_READ))
        page = reader.get(path)
        assert "Cancel all jobs" not in page.text
        assert reader.post(f"{path}/cancel", data={"csrf": csrf(page)}).status_code == 403
