"""Lists: narrowed down, sought and sorted by their address alone, and each page keeps what was asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from publisher.jobs import transitions
from publisher.jobs.waiting import Waiting, WaitKind
from publisher.store.models import Job
from tests.dashboard.conftest import RunningDashboard
from tests.dashboard.rows import OUT_OF_DISK, Account, log, manifest, metric, progress
from tests.dashboard.test_pages import HOSTILE, hostile_job, look

NAMES = re.compile(r'class="name" href="/(?:jobs|variants|base-models)/\w+" title="([^"]*)"')


def names(browser: httpx.Client, path: str) -> list[str]:
    return NAMES.findall(look(browser, path))


@pytest.fixture(scope="module")
def full(dashboard: RunningDashboard) -> Account:
    """Jobs in many states over two base models; nothing here changes them."""
    account = dashboard.account()
    small, large = account.base_model("org/llama"), account.base_model("org/qwen")
    account.job("org/b-queued", small)
    account.job("org/c-running", large).start("gpu-7").stages("fetch", running="align").report(
        progress("align", 1, 4), stage="align"
    )
    account.job("org/a-failed", small).start().stages(running="prune").fail(OUT_OF_DISK)
    account.job("org/d-passed", large).start().succeed(manifest())
    account.job("org/e-worse", large).start().succeed(manifest(80.0))
    waiting = account.job("org/f-waiting", small).start()
    assert waiting.lease is not None
    with account.database.write() as session:
        hub = Waiting(WaitKind.HUB, "the Hub answered 503.", "publish", "It is asked again.")
        transitions.wait(session, waiting.lease, hub, 90)
    return account


@pytest.fixture(scope="module")
def reader(dashboard: RunningDashboard, full: Account) -> Iterator[httpx.Client]:
    with dashboard.signed_in(full) as browser:
        yield browser


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("state=failed", ["org/a-failed"]),
        ("state=queued", ["org/f-waiting", "org/b-queued"]),
        ("stage=align", ["org/c-running"]),
        ("worker=gpu-7", ["org/c-running"]),
        ("waiting=hub", ["org/f-waiting"]),
        ("waiting=turn", ["org/b-queued"]),
        ("q=PASSED", ["org/d-passed"]),
        ("q=qwen&state=running", ["org/c-running"]),
        ("q=%25", []),
        ("q=none-like-it", []),
        ("q=++&state=&stage=&worker=&waiting=&queue=&base_model=&state=failed", ["org/a-failed"]),
        ("sort=name&state=succeeded", ["org/d-passed", "org/e-worse"]),
        ("sort=-name&q=org%2Fqwen", ["org/e-worse", "org/d-passed", "org/c-running"]),
        ("sort=created&q=llama", ["org/b-queued", "org/a-failed", "org/f-waiting"]),
    ],
)
def test_jobs_are_narrowed_down_and_sorted(reader: httpx.Client, query: str, found: list[str]) -> None:
    page = look(reader, f"/jobs?{query}")
    assert NAMES.findall(page) == found
    assert ("No job is like that." in page) == (not found)


def test_jobs_are_found_by_their_id_and_base_model(full: Account, reader: httpx.Client) -> None:
    id = re.findall(r'href="/jobs/(job_\w+)" title="org/a-failed"', look(reader, "/jobs"))[0]
    assert names(reader, f"/jobs?q={id}") == ["org/a-failed"]
    base = re.findall(r'href="/base-models/(base_\w+)" title="org/qwen"', look(reader, "/jobs"))[0]
    page = look(reader, f"/jobs?base_model={base}")
    assert NAMES.findall(page) == ["org/e-worse", "org/d-passed", "org/c-running"]
    assert f'<option value="{base}" selected>org/qwen</option>' in page
    assert 'base model: org/qwen <a href="/jobs"' in page


def test_longest_job_comes_first_and_those_that_never_ran_last(reader: httpx.Client, full: Account) -> None:
    with full.database.write() as session:
        for job in session.query(Job).where(Job.tenant_id == full.tenant_id, Job.finished_at.is_not(None)):
            job.started_at = 1000.0
            job.finished_at = (
                1000.0 + {"org/a-failed": 900, "org/d-passed": 4000, "org/e-worse": 10}[job.variant.publish_repo_id]
            )
    ran = [name for name in names(reader, "/jobs?sort=-took") if name != "org/c-running"]
    assert ran[:3] == ["org/d-passed", "org/a-failed", "org/e-worse"]
    assert names(reader, "/jobs?sort=took")[-2:] == ["org/f-waiting", "org/b-queued"]


def test_states_are_counted_within_what_is_sought(reader: httpx.Client) -> None:
    tabs = re.findall(r"<a href=\"([^\"]+)\"[^>]*>(\w+) <span>(\d+)</span>", look(reader, "/jobs?q=qwen&sort=name"))
    assert [(word, number) for _, word, number in tabs] == [("All", "3"), ("Running", "1"), ("Succeeded", "2")]
    assert tabs[1][0] == "/jobs?sort=name&q=qwen&state=running"


def test_pages_keep_what_was_asked_for(dashboard: RunningDashboard) -> None:
    account = dashboard.account()
    base = account.base_model()
    for number in range(27):
        account.job(f"org/v{number:02}", base)
    with dashboard.signed_in(account) as browser:
        for path, last in (
            ("/jobs?q=org%2Fv", "00"),
            ("/jobs?sort=name&state=queued", "26"),
            ("/variants?sort=name", "26"),
        ):
            first = look(browser, path)
            older = re.search(r'href="([^"]+)" rel="next"', first)
            assert older is not None
            assert set(path.partition("?")[2].split("&")) < set(older[1].partition("?")[2].split("&"))
            page = look(browser, older[1])
            assert NAMES.findall(page)[-1] == f"org/v{last}"
            assert len(NAMES.findall(page)) == 2
            assert "Previous" in page or "Newest" in page


def test_head_of_a_column_sorts_and_then_the_other_way_round(reader: httpx.Client) -> None:
    def head(path: str, word: str) -> tuple[str, str]:
        found = re.search(
            rf'<th scope="col"[^>]*?(?:aria-sort="(\w+)")?><a href="([^"]+)">{word}</a>', look(reader, path)
        )
        assert found is not None
        return found[1] or "", found[2]

    assert head("/jobs?q=org", "Variant") == ("", "/jobs?sort=name&q=org")
    assert head("/jobs?sort=name&q=org", "Variant") == ("ascending", "/jobs?sort=-name&q=org")
    assert head("/jobs?sort=-name", "Variant") == ("descending", "/jobs?sort=name")
    assert head("/jobs", "Created") == ("descending", "/jobs?sort=created")
    assert head("/jobs?sort=name", "Created") == ("", "/jobs")
    assert head("/jobs", "Took") == ("", "/jobs?sort=-took")


@pytest.mark.parametrize("query", ["state=odd", "stage=odd", "sort=odd", "sort=-", "page=0", "page=x", "cursor=var_1"])
def test_odd_questions_are_answered_with_a_page(reader: httpx.Client, query: str) -> None:
    answer = reader.get(f"/jobs?{query}")
    assert answer.status_code in ({200} if query == "sort=-" else {404, 422})
    assert "<h1>" in answer.text


def test_lines_are_taken_anew_alone_and_another_tenants_are_not(dashboard: RunningDashboard, account: Account) -> None:
    work = account.job("org/mine").start().stages("fetch", running="align")
    work.report(metric("loss", 1, 2.0), progress("align", 3, 4), log("x"), stage="align")
    foreign = dashboard.account().job("org/private")
    with dashboard.signed_in(account) as browser:
        page = look(browser, f"/jobs/rows?id={work.job_id}&id={foreign.job_id}&id=job_none")
    assert re.findall(r'<tr id="(\w+)"', page) == [work.job_id]
    assert 'value="75.0"' in page
    assert "<header" not in page


def test_progress_of_an_earlier_try_or_stage_is_not_shown(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().stages("fetch", running="align")
    work.report(progress("align", 3, 4), stage="align").release()
    work.start()
    assert "<progress" not in browser.get("/jobs").text
    work.stages(running="align").report(progress("align", 1, 4), stage="align")
    assert 'value="25.0"' in browser.get("/jobs").text
    work.stages("align", running="quantize")
    assert "<progress" not in browser.get("/jobs").text


def test_variants_are_sought_and_sorted_by_what_was_measured(reader: httpx.Client) -> None:
    published = {"org/d-passed", "org/e-worse"}
    assert set(names(reader, "/variants?sort=-reduction")[:2]) == published
    assert names(reader, "/variants?sort=verdict")[:2] == ["org/d-passed", "org/e-worse"]
    assert set(names(reader, "/variants?state=succeeded")) == published
    assert names(reader, "/variants?q=llama&sort=name") == ["org/a-failed", "org/b-queued", "org/f-waiting"]


def test_base_models_are_sought_and_sorted(reader: httpx.Client) -> None:
    assert names(reader, "/base-models?sort=name") == ["org/llama", "org/qwen"]
    assert names(reader, "/base-models?sort=-parameters") == names(reader, "/base-models?sort=family")
    assert names(reader, "/base-models?q=QWE") == ["org/qwen"]
    assert names(reader, "/base-models?q=llama") == ["org/qwen", "org/llama"]  # the family of both


def test_families_are_found_by_name_and_class(browser: httpx.Client) -> None:
    page = look(browser, "/families?q=MIXTRAL")
    assert "MixtralForCausalLM" in page
    assert "LlamaForCausalLM" not in page
    assert "1 family can be pruned" in page
    assert "No family is called that." in look(browser, "/families?q=none-like-it")


def test_hostile_words_stay_text_in_lists(account: Account, browser: httpx.Client) -> None:
    hostile_job(account)
    paths = ["/jobs", "/variants", "/base-models", "/families"]
    asked = [f"{path}?{httpx.QueryParams(q=HOSTILE)}" for path in paths]
    asked += [f"/jobs?{httpx.QueryParams({name: HOSTILE})}" for name in ("worker", "queue", "waiting", "base_model")]
    asked += [f"/variants?{httpx.QueryParams(base_model=HOSTILE)}", "/overview"]
    for address in asked:
        page = browser.get(address).text
        assert "&lt;script&gt;" in page, address
        assert "<script>" not in page, address
        assert "<img src=x" not in page, address
