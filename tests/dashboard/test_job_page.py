"""What a job's page says of time, stages, tries, result and log, and what it does."""

from __future__ import annotations

import re

import httpx
import pytest

from publisher.dashboard.presentation import amount, left_words, model_name, percent, what_of
from publisher.jobs.events import NewEvent
from publisher.plan.sizes import GIB
from publisher.store.models import Job
from publisher.store.states import EventKind
from tests.dashboard.conftest import RunningDashboard, csrf
from tests.dashboard.rows import OUT_OF_DISK, Account, Work, log, manifest, metric, progress, stage_event
from tests.dashboard.test_pages import HOSTILE, look, steps
from tests.worker.card.test_card import evaluation


def finish_stage(stage: str, seconds: float, **peaks: int) -> NewEvent:
    told = stage_event(stage, "finished", seconds)
    return NewEvent(told.kind, told.data | {"peak_memory": peaks})


def alike(account: Account) -> Work:
    """One of the jobs of a base model that no other test has."""
    return account.job(base_model_id=account.base_model(f"{account.name}/base"))


def whole(account: Account, seconds: float = 100.0) -> Work:
    """A job that succeeded, of which others alike learn."""
    stages = ("fetch", "calibrate", "prune", "align", "quantize", "evaluate", "package", "publish")
    work = alike(account).start()
    return work.report(*[stage_event(stage, "finished", seconds) for stage in stages]).succeed(manifest())


def row_of(page: str, stage: str) -> list[str]:
    """The cells of a line of the table of stages."""
    found = re.search(rf'<tr data-state="\w+">(?:(?!</tr>).)*?>{stage}</span>.*?</tr>', page)
    assert found is not None, stage
    return [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<t[dh].*?</t[dh]>", found[0])]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (245, 410, "4 to 7 min left"),
        (24, 170, "20 s to 3 min left"),
        (3, 8.2, "3 to 9 s left"),
        (0, 0.2, "up to 1 s left"),
        (31, 44, "30 to 45 s left"),
        (2 * 3600, 2.1 * 3600, "2 to 3 h left"),
        (120, 120, "about 2 min left"),
        (5 * 86400, 9 * 86400, "5 to 9 d left"),
    ],
)
def test_time_left_is_an_interval_in_round_numbers(low: float, high: float, words: str) -> None:
    assert left_words(1000 + low, 1000 + high, 1000.0) == words


def test_a_running_job_is_never_done() -> None:
    assert (percent(0.371), percent(1.0), percent(None)) == (37, 99, None)
    assert left_words(900.0, 950.0, 1000.0) == "up to 1 s left"
    assert left_words(None, None, 1000.0) == ""


def test_phases_of_bytes_are_sizes_with_their_name() -> None:
    assert (amount(2**20, "bytes read back"), what_of("bytes read back")) == ("1.0 MiB", "read back")
    assert (what_of("bytes"), what_of("tokens")) == ("", "tokens")


def test_a_base_model_in_a_folder_is_called_by_the_folder_s_name() -> None:
    assert model_name("/srv/models/tiny", "/srv/models/tiny") == "tiny"
    assert model_name("org/tiny", None) == "org/tiny"


def test_the_bar_is_of_the_whole_job_and_says_an_interval(account: Account, browser: httpx.Client) -> None:
    for _ in range(3):
        whole(account)
    work = alike(account).start().stages(running="align")
    page = look(browser, f"/jobs/{work.job_id}")
    assert re.search(r'<progress id="whole" max="100" value="0"', page)
    assert re.search(r'<span id="left">\d+ to \d+ min left</span>', page)
    said = browser.get(f"/jobs/{work.job_id}/outlook").json()
    assert said["percent"] == 0
    assert said["left"].endswith("min left")


def test_where_nobody_knows_how_long_it_takes_the_page_says_so(account: Account, browser: httpx.Client) -> None:
    # another tenant's workers measure speeds for all: a recipe that cannot be read is planned by none
    work = account.job(stored={"recipe": {"pruning": "of another version"}}).start().stages(running="align")
    page = look(browser, f"/jobs/{work.job_id}")
    assert "Nothing is known yet of how long such a job takes." in page
    assert 'id="whole"' not in page
    assert browser.get(f"/jobs/{work.job_id}/outlook").json() == {"percent": None, "left": ""}


def test_stages_stand_beside_what_was_expected_of_them(account: Account, browser: httpx.Client) -> None:
    whole(account, 100.0)
    work = alike(account).start()
    work.report(finish_stage("fetch", 50.0, cpu=GIB), finish_stage("calibrate", 75.0, cpu=GIB, gpu=3 * GIB))
    work.report(stage_event("prune", "started"))
    page = look(browser, f"/jobs/{work.job_id}")
    assert row_of(page, "fetch")[2:] == ["50 s", "1 min 40 s (55 s to 3 min)", "1.0 GiB"]
    assert row_of(page, "calibrate")[2] == "1 min 15 s"
    assert re.fullmatch(r"3\.0 GiB \(.* planned for tensors\)", row_of(page, "calibrate")[4])
    assert row_of(page, "publish")[2] == "–"


def test_tries_before_a_retry_are_told(account: Account, browser: httpx.Client) -> None:
    work = account.job().start("gpu-1").stages("fetch", running="align").fail(OUT_OF_DISK)
    assert 'id="attempts" aria-labelledby="attempts-title" hidden' in look(browser, f"/jobs/{work.job_id}")
    work.retry().start("gpu-2").report(stage_event("fetch", "reused", 12.3), stage_event("align", "started"))
    page = look(browser, f"/jobs/{work.job_id}")
    table = page[page.index('id="attempts"') : page.index('id="log-title"')]
    newer, older = re.findall(r"<tr>(?!<th scope=.col).*?</tr>", table)[-2:]
    for told in ("gpu-2", 'fetch <span class="muted">reused', 'align <span class="muted">running', "runs"):
        assert told in newer
    for told in (
        "gpu-1",
        'fetch <span class="muted">12 s',
        'align <span class="muted">broken off',
        OUT_OF_DISK.message,
    ):
        assert told in older
    assert steps(page)["fetch"] == "reused"


def test_a_job_that_succeeded_says_what_came_of_it(account: Account, browser: httpx.Client) -> None:
    measured = manifest() | {"evaluation": evaluation(64.0, strength=1.3).model_dump(mode="json")}
    work = account.job().start().succeed(measured)
    page = look(browser, f"/jobs/{work.job_id}")
    result = page[page.index('class="result"') : page.index('class="steps"')]
    for told in ("81.4 MiB", "57 %", "of the gain retained", "76.60 → 64.00", 'href="https://hub.example/org/small"'):
        assert told in result


def test_a_job_that_has_ended_is_deleted(account: Account, browser: httpx.Client) -> None:
    work = account.job().start()
    page = f"/jobs/{work.job_id}"
    assert "/delete" not in browser.get(page).text
    token = {"csrf": csrf(browser.get(page))}
    assert browser.post(f"{page}/delete", data=token).status_code == 409
    work.fail(OUT_OF_DISK)
    assert f'action="{page}/delete" data-confirm="Delete this job?' in browser.get(page).text
    assert browser.post(f"{page}/delete").status_code == 403
    assert browser.post(f"{page}/delete", data=token).headers["location"] == "/jobs"
    assert browser.get(page).status_code == 404


def staged(message: str, stage: str) -> NewEvent:
    return NewEvent(EventKind.LOG, {"message": message, "stage": stage})


def lines(page: str) -> list[str]:
    return re.findall(r"<li[^>]*><time[^>]*>[^<]*</time> <span>([^<]*)</span>", page)


def test_the_log_is_told_by_stage_searched_and_taken_along(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().report(staged("reads a Whale", "fetch"), staged("is read", "fetch"))
    work.report(staged("trains on whales", "align")).fail(OUT_OF_DISK).retry().start()
    work.report(staged("whale, again", "fetch"))
    address = f"/jobs/{work.job_id}"
    page = look(browser, address)
    assert lines(page) == ["reads a Whale", "is read", "trains on whales", "whale, again"]
    assert re.findall(r'data-begins="(\w+)"', page) == ["fetch", "align", "fetch"]
    assert lines(look(browser, f"{address}?q=WHALE")) == ["reads a Whale", "trains on whales", "whale, again"]
    assert lines(look(browser, f"{address}?q=whale&attempt=2")) == ["whale, again"]
    assert "No line has this." in look(browser, f"{address}?q=shark")
    text = browser.get(f"{address}/log.txt")
    assert text.headers["content-disposition"] == f'attachment; filename="{work.job_id}.txt"'
    assert [line.partition("] ")[2] for line in text.text.splitlines()] == lines(page)
    assert browser.get(f"{address}?attempt=9").status_code == 404


def test_a_long_log_shows_its_end_and_says_so(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().report(*[log(f"line {number}") for number in range(205)])
    for query in ("", "?q=line"):
        page = look(browser, f"/jobs/{work.job_id}{query}")
        assert lines(page)[0] == "line 5"
        assert "The newest 200 lines; the download has all." in page


def test_another_tenant_s_job_has_no_outlook_log_or_end(dashboard: RunningDashboard, account: Account) -> None:
    work = account.job().start().fail(OUT_OF_DISK)
    with dashboard.signed_in(dashboard.account()) as stranger:
        for part in ("outlook", "log.txt"):
            assert stranger.get(f"/jobs/{work.job_id}/{part}").status_code == 404
        token = {"csrf": csrf(stranger.get("/jobs"))}
        assert stranger.post(f"/jobs/{work.job_id}/delete", data=token).status_code == 404
    with account.database.read() as session:
        assert session.get(Job, work.job_id) is not None


def test_hostile_words_stay_text_wherever_they_are_told(account: Account, browser: httpx.Client) -> None:
    work = account.job(HOSTILE).start(HOSTILE).report(staged(HOSTILE, HOSTILE), stage_event("fetch", "started"))
    work.report(
        progress("fetch", 1, 2, HOSTILE), metric(f"perplexity/{HOSTILE}/{HOSTILE}", 1, 2.0), metric(HOSTILE, 1, 1.0)
    )
    pages = [browser.get(f"/jobs/{work.job_id}").text, browser.get(f"/jobs/{work.job_id}", params={"q": HOSTILE}).text]
    work.fail(OUT_OF_DISK).retry().start()
    pages.append(browser.get(f"/jobs/{work.job_id}").text)
    for page in pages:
        assert "<script>" not in page
        assert "<img src=x" not in page


def test_a_long_job_s_page_is_no_longer_than_a_short_one_s(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().stages("fetch", running="align")
    sizes = []
    for first in (0, 1000, 2000):
        work.report(*[metric("loss", step, 1 + step % 7) for step in range(first, first + 1000)], stage="align")
        work.report(progress("align", first, 4000), log(f"at {first}"), stage="align")
        sizes.append(len(browser.get(f"/jobs/{work.job_id}").text))
    assert sizes[-1] < 1.1 * sizes[0], "series are thinned"
