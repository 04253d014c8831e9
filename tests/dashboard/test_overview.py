"""The first page says what runs, what needs somebody, what waits and for what, who works, and what was made."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import delete

from publisher.jobs import transitions
from publisher.jobs.transitions import Failure
from publisher.jobs.waiting import Waiting, WaitKind
from publisher.store.database import clock
from publisher.store.models import Job, Worker
from tests.dashboard.conftest import RunningDashboard
from tests.dashboard.rows import OUT_OF_DISK, Account, Work, manifest, metric, progress
from tests.dashboard.test_pages import HOSTILE, hostile_job, look


@pytest.fixture(autouse=True)
def _no_worker_stays(dashboard: RunningDashboard) -> Iterator[None]:
    """They are everybody's: other tests' jobs say that none is there."""
    yield
    with dashboard.database.write() as session:
        session.execute(delete(Worker))


def part(page: str, id: str) -> str:
    """A section's text, without its markup."""
    found = re.search(rf'<section id="{id}".*?</section>', page)
    assert found is not None, id
    return " ".join(re.sub(r"<[^>]+>", " ", found[0]).split())


def waits(account: Account, work: Work, kind: WaitKind, way_out: str | None) -> None:
    assert work.lease is not None
    with account.database.write() as session:
        transitions.wait(session, work.lease, Waiting(kind, "the Hub answered 503.", "publish", way_out), 90)


def add_worker(account: Account, id: str, *, seen_ago: float = 0.0, queues: list[str] | None = None) -> None:
    with account.database.write() as session:
        speeds = {"flops_per_second": 1e14, "fp32_flops_per_second": 1e13}
        held = {"device": "cuda:0 H200", "kind": "gpu", "memory_bytes": 80 * 2**30, "free_disk_bytes": 2**40}
        session.merge(Worker(id=id, seen_at=clock(session) - seen_ago, devices=2, queues=queues, **speeds, **held))


def test_start_page_of_an_empty_installation_says_the_first_steps(browser: httpx.Client) -> None:
    page = look(browser, "/overview")
    assert "Nothing here yet" in page
    assert "/v1/base-models" in page
    assert '<section id="running" aria-labelledby="running-title" hidden>' in page


def test_running_job_shows_progress_speed_worker_and_when_it_ends(account: Account, browser: httpx.Client) -> None:
    add_worker(account, "gpu-one")
    work = account.job("org/fast").start("gpu-one").stages("fetch", running="align")
    work.report(metric("tokens_per_second", 1, 900.0), metric("tokens_per_second", 2, 1234.0), stage="align")
    work.report(progress("align", 1, 4), stage="align")
    page = look(browser, "/overview")
    said = part(page, "running")
    for told in ("org/fast", "align", "gpu-one", "1,234 tokens/s", " left"):
        assert told in said
    # of the whole job by its plan, not of its stage
    assert re.search(r"align [01] %", said)
    assert "Running 1" in part(page, "summary")
    worker = part(page, "workers")
    assert re.search(r"gpu-one busy cuda:0 H200 2 × 80.0 GiB 1.0 TiB org/fast", worker)


def test_what_waits_is_told_by_what_it_needs_and_waits_for(account: Account, browser: httpx.Client) -> None:
    base = account.base_model()
    account.job("org/next", base)
    for _ in range(2):
        waits(account, account.job("org/hub", base).start(), WaitKind.HUB, "Ask the Hub's owner.")
    page = look(browser, "/overview")
    assert re.search(r"GiB the Hub 2 ", part(page, "queue"))
    assert re.search(r"GiB its turn 1 ", part(page, "queue"))
    assert "2 jobs waiting for the Hub: the Hub answered 503. Ask the Hub's owner." in part(page, "attention")
    links = re.findall(r'href="(/jobs\?[^"]*waiting=hub[^"]*)"', page)
    assert links
    for link in links:
        assert look(browser, link).count("org/hub</a>") == 2


def test_waiting_that_nobody_can_end_and_what_was_cancelled_need_nobody(
    account: Account, browser: httpx.Client
) -> None:
    waits(account, account.job().start(), WaitKind.HUB, None)
    account.job().cancel()
    page = look(browser, "/overview")
    assert '<section id="attention" aria-labelledby="attention-title" hidden>' in page
    assert "No job runs." in page


def test_failures_with_the_same_words_are_one_and_old_ones_are_left(account: Account, browser: httpx.Client) -> None:
    base = account.base_model()
    old = account.job("org/old", base).start().fail(Failure(OUT_OF_DISK.blame, "align", "Long ago."))
    with account.database.write() as session:
        session.get_one(Job, old.job_id).finished_at = clock(session) - 30 * 86_400
    for number in range(3):
        account.job(f"org/full-{number}", base).start().stages(running="align").fail(OUT_OF_DISK)
    page = look(browser, "/overview")
    said = part(page, "attention")
    assert f"org/full-2 and 2 more failed in align: {OUT_OF_DISK.message}" in said
    assert "Free space, then retry." in said
    assert "Long ago." not in said
    assert "All 4 that failed" in said


def test_what_was_published_last_stands_first_with_its_verdict(account: Account, browser: httpx.Client) -> None:
    base = account.base_model()
    first, second = account.job("org/first", base), account.job("org/second", base)
    second.start().succeed(manifest())
    first.start().succeed(manifest(80.0))
    said = part(look(browser, "/overview"), "published")
    assert re.search(r"org/first 1.60 × failed .* org/second 1.60 × passed", said)


def test_another_tenants_jobs_are_not_told(dashboard: RunningDashboard, account: Account) -> None:
    add_worker(account, "gpu-two")
    base = account.base_model()
    account.job("org/private", base).start("gpu-two")
    account.job("org/private", base)
    account.job("org/private", base).start().fail(OUT_OF_DISK)
    account.job("org/private", base).start().succeed(manifest())
    stranger = dashboard.account()
    stranger.job("org/own").cancel()
    with dashboard.signed_in(stranger) as browser:
        page = look(browser, "/overview")
    assert "org/private" not in page
    assert "gpu-two busy" in part(page, "workers")
    assert "Nothing waits." in part(page, "queue")
    assert part(page, "summary") == "Overview Cancelled 1"


def test_silent_worker_is_away_and_a_restricted_one_says_what_it_takes(account: Account, browser: httpx.Client) -> None:
    add_worker(account, "gpu-lost", seen_ago=9000)
    add_worker(account, "gpu-small", queues=["cpu", "4"])
    account.job()
    assert "gpu-small idle cuda:0 H200 only jobs of cpu, 4" in part(look(browser, "/overview"), "workers")
    assert re.search(r"gpu-lost away .* 2 h ago|gpu-lost away .* 3 h ago", part(look(browser, "/overview"), "workers"))


def test_hostile_words_stay_text_on_the_overview(account: Account, browser: httpx.Client) -> None:
    base = account.base_model(HOSTILE)
    add_worker(account, HOSTILE)
    hostile_job(account)
    account.job(HOSTILE, base).start().fail(Failure(OUT_OF_DISK.blame, "align", HOSTILE, HOSTILE))
    account.job(HOSTILE, base).start().succeed(manifest())
    stuck = account.job(HOSTILE, base).start()
    assert stuck.lease is not None
    with account.database.write() as session:
        transitions.wait(session, stuck.lease, Waiting(WaitKind.HUB, HOSTILE, "publish", HOSTILE), 90)
    page = browser.get("/overview").text
    assert page.count("&lt;script&gt;") > 8
    assert "<script>" not in page
    assert "<img src=x" not in page
