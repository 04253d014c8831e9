"""Pages over rows that the real job functions wrote; complete without a script."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape

import httpx
import pytest

from publisher.jobs import transitions
from publisher.jobs.placement import keep_waiting_true
from publisher.jobs.publishing import TOO_LATE
from publisher.jobs.removal import remove_job
from publisher.jobs.transitions import Blame, Failure
from publisher.jobs.waiting import Waiting, WaitKind
from publisher.manifest.evaluation import EvaluationReport
from publisher.recipe.pruning import Scope
from publisher.store.models import Job
from tests.dashboard.conftest import RunningDashboard, csrf
from tests.dashboard.rows import OUT_OF_DISK, RECIPE, Account, Work, log, manifest, metric, progress, stage_event
from tests.worker.card.test_card import evaluation

STEP = re.compile(r'<li data-state="(\w+)"[^>]*> <span class="stage">(\w+)</span>')


def look(browser: httpx.Client, path: str) -> str:
    """The page's source, entities resolved, white space folded."""
    answer = browser.get(path)
    assert answer.status_code == 200, answer.text
    return " ".join(unescape(answer.text).split())


def steps(page: str) -> dict[str, str]:
    return {stage: state for state, stage in STEP.findall(page)}


def test_empty_pages_say_what_to_do(browser: httpx.Client) -> None:
    for path in ("/jobs", "/variants", "/base-models"):
        page = look(browser, path)
        assert "Nothing here yet" in page
        assert "/v1/base-models" in page


def test_command_on_an_empty_page_works_as_it_stands(account: Account, browser: httpx.Client) -> None:
    base = account.base_model()
    source = unescape(browser.get("/jobs").text)
    command = re.findall(r"<code>(curl [^\s]*/v1/variants .*?)</code>", source, re.DOTALL)[0]
    words = shlex.split(command.replace("\\\n", "").replace("my-org", account.name))
    address, body = words[1], json.loads(words[-1])
    assert body["base_model_id"] == base
    sent = {name: value for name, _, value in (words[index].partition(": ") for index in (3, 5))}
    sent["Authorization"] = sent["Authorization"].replace("$PUBLISHER_API_KEY", account.key)
    answer = httpx.post(address, headers=sent, json=body, timeout=30)
    assert answer.status_code == 201, answer.text
    assert answer.json()["job"]["id"] in look(browser, "/jobs")


def test_queued_job_says_which_worker_is_missing_and_its_place(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    first, second = account.job(), account.job()
    keep_waiting_true(dashboard.database, 30)
    page = look(browser, f"/jobs/{second.job_id}")
    assert page.count("o worker is running.") == page.count("<p>No worker is running.</p>") == 1
    before, after = (
        int(re.findall(r"Number (\d+) in", look(browser, f"/jobs/{work.job_id}"))[0]) for work in (first, second)
    )
    assert after == before + 1


def test_queued_job_waits_for_a_worker(account: Account, browser: httpx.Client) -> None:
    work = account.job()
    page = look(browser, f"/jobs/{work.job_id}")
    assert "Waiting for a worker." in page
    assert set(steps(page).values()) == {"waiting"}
    assert 'action="/jobs/' in page
    assert "Cancel" in page


def test_running_job_shows_steps_progress_curve_and_log(account: Account, browser: httpx.Client) -> None:
    work = account.job().start("gpu-7").stages("fetch", running="calibrate")
    work.report(stage_event("calibrate", "reused"), stage_event("prune", "finished", 75.0))
    work.report(stage_event("align", "started"), progress("align", 1000, 4000), stage="align")
    work.report(*[metric("loss", step, 10 / step) for step in range(1, 6)], log("half way"))
    work.report(progress("align", 3000, 4000), stage="align")
    page = look(browser, f"/jobs/{work.job_id}")
    assert list(steps(page).items())[:5] == [
        ("fetch", "finished"),
        ("calibrate", "reused"),
        ("prune", "finished"),
        ("align", "started"),
        ("quantize", "waiting"),
    ]
    for told in ("1 min 15 s", "3,000 of 4,000 tokens", ">75 %<", "half way", "gpu-7", "1 of 5"):
        assert told in page
    assert 'aria-label="Alignment loss by step of alignment: 10 at step 1, 2 at step 5; lowest 2, highest 10"' in page
    assert f'data-seq="{work.last_seq}"' in page


def test_stage_that_ran_again_is_drawn_once(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().stages(running="align")
    work.report(*[metric("loss", step, 9.0) for step in range(1, 8)])
    work.report(*[metric("loss", step, 3.0) for step in range(1, 5)])
    page = look(browser, f"/jobs/{work.job_id}")
    line = re.search(r'class="line"[^>]* points="([^"]*)"', page)
    assert line is not None
    heights = [point.split(",")[1] for point in line[1].split()]
    assert len(heights) == 7
    assert len(set(heights[:4])) == len(set(heights[4:])) == 1
    assert heights[0] != heights[4]


def test_failed_job_says_who_is_to_blame_and_what_to_do(account: Account, browser: httpx.Client) -> None:
    broken = account.job().start().stages("fetch", running="align").fail(OUT_OF_DISK)
    page = look(browser, f"/jobs/{broken.job_id}")
    for told in ("Failed in align", "The infrastructure is to blame", OUT_OF_DISK.message, "Free space, then retry."):
        assert told in page
    assert steps(page)["align"] == "failed"
    wrong = account.job().start().stages(running="prune").fail(Failure(Blame.REQUEST, "prune", "Ratio too high."))
    assert "The request is to blame" in look(browser, f"/jobs/{wrong.job_id}")


def test_job_is_paused_and_resumed_on_its_page(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().stages("fetch", running="align")
    work.report(progress("align", 1000, 4000), stage="align")
    address = f"/jobs/{work.job_id}"
    token = {"csrf": csrf(browser.get(address))}
    assert browser.post(f"{address}/pause", data=token).status_code == 303
    page = look(browser, address)
    assert "Pausing: the worker saves its state." in page
    assert steps(page)["align"] == "started"
    work.release()
    page = look(browser, address)
    assert "Paused: it keeps its place" in page
    assert (steps(page)["fetch"], steps(page)["align"]) == ("finished", "stopped")
    assert f'action="{address}/resume"' in page
    assert f'action="{address}/cancel"' in page
    assert f'data-job="{work.job_id}"' in page  # the page goes on when the job does
    assert browser.post(f"{address}/resume", data=token).status_code == 303
    assert "Waiting for a worker." in look(browser, address)


def test_variant_whose_job_was_deleted_is_shown(account: Account, browser: httpx.Client) -> None:
    work = account.job("org/alone")
    work.cancel()
    with account.database.write() as session:
        remove_job(session, session.get_one(Job, work.job_id))
    assert "org/alone" in look(browser, "/variants")
    assert "org/alone" in look(browser, f"/variants/{work.variant_id}")


def test_job_that_will_be_tried_again_says_when(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().stages("fetch", running="align").fail(OUT_OF_DISK, tries=5)
    page = look(browser, f"/jobs/{work.job_id}")
    assert "The last try failed in align" in page
    assert "The next try starts in" in page
    assert set(steps(page).values()) == {"waiting"}


def test_job_that_waits_for_a_hub_says_so_on_its_page_and_in_the_list(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().stages("fetch", running="publish")
    assert work.lease is not None
    with account.database.write() as session:
        waiting = Waiting(WaitKind.HUB, "the Hub answered 503.", "publish", "Nothing: it is asked again.")
        transitions.wait(session, work.lease, waiting, 90)
    page = look(browser, f"/jobs/{work.job_id}")
    for told in (
        "Waiting for the Hub",
        "the Hub answered 503.",
        "Nothing: it is asked again.",
        "The next look is in 1 min",
    ):
        assert told in page
    assert "waiting for the Hub" in look(browser, "/jobs")


def test_cancel_that_came_too_late_is_told(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().stages("fetch", running="publish").cancel()
    work.succeed(manifest())
    assert TOO_LATE in look(browser, f"/jobs/{work.job_id}")


def test_succeeded_job_skipped_what_it_did_not_run(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().stages("fetch", "calibrate", "prune", "quantize", "package", "publish")
    work.succeed(manifest())
    shown = steps(look(browser, f"/jobs/{work.job_id}"))
    assert shown["publish"] == "finished"
    assert shown["align"] == shown["evaluate"] == "skipped"


def test_succeeded_job_leads_to_its_result(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().stages("fetch", "calibrate", "prune", "quantize", "package", running="publish")
    link = f'<a href="/variants/{work.variant_id}">See the checkpoint</a>'
    assert link not in look(browser, f"/jobs/{work.job_id}")
    work.succeed(manifest())
    assert link in look(browser, f"/jobs/{work.job_id}")


def test_cancelled_job_stopped_where_it_was(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().stages("fetch", running="align").cancel()
    assert "Stopping" in look(browser, f"/jobs/{work.job_id}")
    work.stop()
    page = look(browser, f"/jobs/{work.job_id}")
    assert steps(page)["align"] == "stopped"
    assert steps(page)["quantize"] == steps(page)["publish"] == "unreached"
    assert "not reached" in page
    assert "Retry" in page


def test_buttons_cancel_and_retry(account: Account, browser: httpx.Client) -> None:
    work = account.job()
    page = f"/jobs/{work.job_id}"
    token = {"csrf": csrf(browser.get(page))}
    assert browser.post(f"{page}/cancel", data=token).headers["location"] == page
    assert 'data-state="cancelled"' in browser.get(page).text
    assert browser.post(f"{page}/retry", data=token).headers["location"] == page
    assert 'data-state="queued"' in browser.get(page).text
    refused = browser.post(f"{page}/retry", data=token)
    assert refused.status_code == 409
    assert "Only a failed or cancelled job can be retried." in refused.text


def test_list_shows_every_state(account: Account, browser: httpx.Client) -> None:
    base = account.base_model()
    account.job("org/queued", base)
    account.job("org/running", base).start().stages("fetch", running="align").report(
        progress("align", 1, 4), stage="align"
    )
    account.job("org/cancelling", base).start().cancel()
    account.job("org/cancelled", base).cancel()
    account.job("org/failed", base).start().stages(running="align").fail(OUT_OF_DISK)
    account.job("org/succeeded", base).start().succeed(manifest())
    page = look(browser, "/jobs")
    states = re.findall(r'class="badge" data-state="(\w+)"', page)
    assert states == ["succeeded", "failed", "cancelled", "cancelling", "running", "queued"]
    assert "25 %" in page
    assert "failed in align" in page


def test_lists_are_paged_newest_first(account: Account, browser: httpx.Client) -> None:
    base = account.base_model()
    for number in range(27):
        account.job(f"org/v{number:02}", base)
    for path in ("/jobs", "/variants"):
        first = look(browser, path)
        assert re.findall(r"org/v(\d\d)<", first) == [f"{number:02}" for number in range(26, 1, -1)]
        older = re.search(rf'href="({path}\?cursor=[^"]+)" rel="next"', first)
        assert older is not None
        assert re.findall(r"org/v(\d\d)<", look(browser, older[1])) == ["01", "00"]


def test_variant_is_planned_until_it_is_measured(account: Account, browser: httpx.Client) -> None:
    work = account.job("org/small")
    page = look(browser, f"/variants/{work.variant_id}")
    assert "134.5 M → 86.0 M" in page
    assert "(planned)" in page
    assert "classics × 3, docs × 1" in page
    work.start().succeed(manifest())
    page = look(browser, f"/variants/{work.variant_id}")
    assert "134.5 M → 84.0 M" in page
    assert "(planned)" not in page
    for told in ("419.10", "131.70", "Certificate: adapters carry over", "76.62 to <strong>64.00</strong>"):
        assert told in page
    assert 'href="https://hub.example/org/small"' in page


def test_recipe_shows_the_fields_that_mean_something(account: Account, browser: httpx.Client) -> None:
    page = look(browser, f"/variants/{account.job().variant_id}")
    assert "<dt>round to</dt><dd>1</dd>" in page
    assert "<dt>calibration corpus</dt><dd>classics</dd>" in page
    assert "<dt>scope</dt><dd>joint</dd>" in page
    for unread in ("pattern", "storage", "calibration corpora"):
        assert f"<dt>{unread}</dt>" not in page
    uniform = RECIPE.model_copy(update={"pruning": RECIPE.pruning.model_copy(update={"scope": Scope.UNIFORM})})
    assert "<dt>neuron floor</dt>" in page
    assert "<dt>neuron floor</dt>" not in look(
        browser, f"/variants/{account.job('org/even', recipe=uniform).variant_id}"
    )
    assert "0.65 structured, taylor" in look(browser, "/variants")


@pytest.mark.parametrize(
    ("report", "heading", "listed"),
    [
        (evaluation(64.0), "adapters carry over", "passed"),
        (evaluation(64.0, error=0.1), "no significant improvement", "not significant"),
        (evaluation(76.55, error=1e-5), "hardly any improvement", "negligible"),
        (evaluation(64.0, documents=7), "inconclusive, too few documents", "inconclusive"),
        (evaluation(64.0, documents=1, error=None), "inconclusive, too few documents", "inconclusive"),
        (evaluation(80.0), "no improvement", "failed"),
    ],
)
def test_certificate_s_verdict_is_shown_with_what_it_rests_on(
    account: Account, browser: httpx.Client, report: EvaluationReport, heading: str, listed: str
) -> None:
    work = account.job().start().succeed(manifest() | {"evaluation": report.model_dump(mode="json")})
    page = look(browser, f"/variants/{work.variant_id}")
    assert f"Certificate: {heading}</h2>" in page
    assert report.certificate is not None
    assert report.certificate.difference is not None
    assert f"over {report.certificate.difference.documents} held-out document" in page
    assert f">{listed}</span>" in look(browser, "/variants")


def test_certificate_that_was_not_measured_by_document_states_no_verdict(
    account: Account, browser: httpx.Client
) -> None:
    older = manifest()
    del older["evaluation"]["certificate"]["differences"]
    work = account.job().start().succeed(older)
    page = look(browser, f"/variants/{work.variant_id}")
    assert "Certificate: no verdict stated" in page
    assert "It was not measured document by document" in page
    assert ">not stated</span>" in look(browser, "/variants")


def test_certificate_stands_beside_its_upper_bound_corpus_by_corpus(account: Account, browser: httpx.Client) -> None:
    measured = {"evaluation": evaluation(64.0, strength=1.3).model_dump(mode="json")}
    work = account.job().start().succeed(manifest() | measured)
    page = look(browser, f"/variants/{work.variant_id}")
    assert "The recovered LoRA was multiplied by 1.3, as <code>publisher recover</code> does" in page
    for told in ("reaches 54.40: 57 % of its gain carries over", "1.0 GiB", "Gradient fidelity: 0.510", "arc_easy"):
        assert told in page
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr>(.+?)</tr>", page)]
    assert ["moby", "76.60", "64.00", "54.40", "57", "%", "0.18", "±", "0.02", "12"] in rows
    assert ["speeches", "31.30", "31.10", "30.80", "40", "%", "0.00641", "±", "0.01", "9"] in rows
    assert ["arc_easy", "acc", "0.61", "–", "0.63"] in rows


def test_base_model_shows_geometry_counts_and_files(account: Account, browser: httpx.Client) -> None:
    page = look(browser, f"/base-models/{account.base_model()}")
    for told in ("134,515,008", "256.6 MiB", "<dt>hidden size</dt><dd>576</dd>", "tokenizer.json", "bfloat16"):
        assert told in page
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in look(browser, "/base-models")


PAGES = ("/jobs/{0.job_id}", "/jobs/{0.job_id}/events", "/variants/{0.variant_id}", "/variants/{0.variant_id}/files/a")


def test_another_tenants_pages_do_not_exist(dashboard: RunningDashboard, account: Account) -> None:
    work = account.job("org/private-name").start().succeed(manifest())
    base = account.base_model("org/private-base")
    with dashboard.signed_in(dashboard.account()) as stranger:
        paths = [path.format(work) for path in PAGES] + [f"/base-models/{base}"]
        for path in paths:
            assert stranger.get(path).status_code == 404, path
        token = {"csrf": csrf(stranger.get("/jobs"))}
        assert stranger.post(f"/jobs/{work.job_id}/cancel", data=token).status_code == 404
        assert stranger.post(f"/jobs/{work.job_id}/retry", data=token).status_code == 404
        for path in ("/jobs", "/variants", "/base-models"):
            assert "org/private" not in look(stranger, path)


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def hostile_job(account: Account) -> Work:
    """Names and messages that try to be markup, wherever somebody outside chooses them."""
    work = account.job(HOSTILE, account.base_model(HOSTILE)).start(HOSTILE).stages(running="align")
    work.report(progress("align", 1, 2, HOSTILE), stage="align")
    return work.report(log(HOSTILE), metric(HOSTILE, 1, 2.0), stage="align")


def test_hostile_names_stay_text(dashboard: RunningDashboard, browser: httpx.Client, account: Account) -> None:
    work = hostile_job(account)
    paths = ["/jobs", "/variants", "/base-models", f"/jobs/{work.job_id}", f"/variants/{work.variant_id}"]
    pages = [browser.get(path).text for path in paths]
    work.fail(Failure(Blame.REQUEST, "align", HOSTILE, HOSTILE))
    pages.append(browser.get(f"/jobs/{work.job_id}").text)
    with dashboard.signed_in(dashboard.account(key_name=HOSTILE)) as other:
        pages.append(other.get("/jobs").text)
    for page in pages:
        assert "&lt;script&gt;" in page
        assert "<script>" not in page
        assert "<img src=x" not in page


def test_publication_with_a_script_address_is_no_link(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().succeed(manifest(), endpoint="javascript:alert(1)//")
    assert 'href="javascript' not in look(browser, f"/variants/{work.variant_id}")


@pytest.mark.parametrize(
    "path", ["/jobs?cursor=" + "x" * 65, "/jobs/%00", "/variants/" + "é" * 9, "/assets/..%2fjobs.py"]
)
def test_odd_addresses_are_answered_with_a_page(browser: httpx.Client, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 404


def test_families_say_what_is_removed_and_why_not(browser: httpx.Client) -> None:
    page = look(browser, "/families")
    assert "MixtralForCausalLM" in page
    assert "heads, experts" in page
    assert "no tensor-parallel plan" in page
