"""From the first click to a submitted variant: what forms show, refuse, plan and make."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest
from sqlalchemy import delete

from publisher.keys.scopes import Scope
from publisher.recipe import Recipe
from publisher.store import keys, quotas
from publisher.store.models import Tenant, Worker
from publisher.store.quotas import JOBS_QUEUED
from tests.api.conftest import write_corpus
from tests.dashboard.conftest import RunningDashboard, csrf, sign_in
from tests.dashboard.forms import form
from tests.dashboard.rows import OUT_OF_DISK, RECIPE, Account
from tests.dashboard.test_pages import HOSTILE, look
from tests.jobs.rows import add_worker
from tests.models import tiny_llama

NEW = "/variants/new"


@pytest.fixture(scope="module")
def files(dashboard: RunningDashboard) -> Path:
    """Where models and text may be registered from, with a model and a corpus."""
    write_corpus(dashboard.corpora / "novel.jsonl", 200, 300)
    tiny_llama(dashboard.data / "models" / "tiny")
    return dashboard.data


@pytest.fixture
def base_model(account: Account) -> str:
    return account.base_model()


@pytest.fixture
def reader(dashboard: RunningDashboard, account: Account) -> Iterator[httpx.Client]:
    """Of the same tenant, with a key for looking."""
    key = keys.new_key()
    with dashboard.database.write() as session:
        keys.add_key(session, account.tenant_id, "for looking", key, scopes=[Scope.MODELS_READ])
    with dashboard.browser() as browser:
        assert sign_in(browser, key).status_code == 303
        yield browser


def folded(answer: httpx.Response) -> str:
    return " ".join(unescape(answer.text).split())


def problem(answer: httpx.Response, place: str) -> str:
    """What stands beside a field."""
    found = re.search(rf'<p class="problem" id="p-{re.escape(place)}"[^>]*>([^<]*)</p>', answer.text)
    assert found is not None, place
    return unescape(found[1])


def fill(browser: httpx.Client, address: str = NEW, **typed: str) -> dict[str, str]:
    return form(browser.get(address), address.partition("?")[0]) | typed


def send(browser: httpx.Client, fields: dict[str, str], do: str = "plan", address: str = NEW) -> httpx.Response:
    return browser.post(address, data=fields | {"do": do})


# --- base models


def test_folder_is_registered_from_its_form(files: Path, account: Account, browser: httpx.Client) -> None:
    fields = fill(browser, "/base-models/new", path=str(files / "models" / "tiny"), published_as="org/tiny")
    made = browser.post("/base-models/new", data=fields)
    assert made.status_code == 303, made.text
    page = look(browser, made.headers["location"])
    assert "<dt>Known as</dt><dd>org/tiny</dd>" in page
    again = browser.post("/base-models/new", data=fields)
    assert again.headers["location"] == made.headers["location"]


@pytest.mark.parametrize(
    ("typed", "place", "said"),
    [
        ({"path": "/etc"}, "path", "lies outside the folders that may be read"),
        ({"path": "models"}, "path", "is relative"),
        ({"path": HOSTILE}, "path", "is relative"),
        ({}, "", 'Give either "repo_id" or "path"'),
        ({"path": "/etc", "revision": "main"}, "", '"revision" belongs to "repo_id"'),
        ({"repo_id": "x" * 201}, "repo_id", "at most 200 characters"),
        ({"path": "/etc", "labels": "a b=c"}, "labels", "should match pattern"),
    ],
)
def test_refused_base_model_says_why_and_keeps_what_was_typed(
    browser: httpx.Client, typed: dict[str, str], place: str, said: str
) -> None:
    answer = browser.post("/base-models/new", data=fill(browser, "/base-models/new", **typed))
    assert answer.status_code == 422
    assert said in (problem(answer, place) if place else folded(answer))
    assert form(answer, "/base-models/new").items() >= typed.items()
    assert "<script>alert" not in answer.text


def test_base_model_is_forgotten_unless_a_variant_uses_it(account: Account, browser: httpx.Client) -> None:
    id = account.base_model()
    token = {"csrf": csrf(browser.get(f"/base-models/{id}"))}
    work = account.job("org/uses-it", id)
    page = look(browser, f"/base-models/{id}")
    assert f'href="/variants/{work.variant_id}"' in page
    assert "/delete" not in page
    refused = browser.post(f"/base-models/{id}/delete", data=token)
    assert refused.status_code == 409
    assert work.variant_id in refused.text
    unused = account.base_model("org/unused")
    assert f"/base-models/{unused}/delete" in look(browser, f"/base-models/{unused}")
    assert browser.post(f"/base-models/{unused}/delete", data=token).headers["location"] == "/base-models"
    assert browser.get(f"/base-models/{unused}").status_code == 404


# --- corpora


def test_corpus_is_registered_counted_and_sampled(files: Path, account: Account, browser: httpx.Client) -> None:
    path = files / "corpora" / f"{secrets.token_hex(4)}.jsonl"
    path.write_text("".join(json.dumps({"body": f"{HOSTILE} {n} " + "word " * 300}) + "\n" for n in range(40)))
    fields = fill(browser, "/corpora/new", name="letters", path=str(path), text_field="body", held_out_fraction="0.25")
    made = browser.post("/corpora/new", data=fields)
    assert made.status_code == 303, made.text
    source = browser.get(made.headers["location"]).text
    assert source.count("&lt;script&gt;alert(1)") == 5
    assert "<script>alert" not in source
    page = look(browser, made.headers["location"])
    assert "40" in page
    assert "in 10" in page
    assert "No variant’s recipe names it." in page
    assert "letters" in look(browser, "/corpora")


@pytest.mark.parametrize(
    ("typed", "place", "said"),
    [
        ({"name": "a b", "path": "/etc"}, "name", "should match pattern"),
        ({"path": "/etc"}, "name", "Required"),
        ({"name": "n", "path": "/etc"}, "path", "lies outside"),
        ({"name": "n", "dataset": "no-owner"}, "dataset", "should match pattern"),
        ({"name": "n", "path": "/etc", "held_out_fraction": "2"}, "held_out_fraction", "less than or equal to 1"),
        ({"name": "n", "path": "/etc", "documents": "many"}, "documents", "should be a valid integer"),
        ({"name": "n", "path": "/etc", "split": "test"}, "", '"split" belongs to "dataset"'),
    ],
)
def test_refused_corpus_says_why_and_keeps_what_was_typed(
    browser: httpx.Client, typed: dict[str, str], place: str, said: str
) -> None:
    answer = browser.post("/corpora/new", data=fill(browser, "/corpora/new", **typed))
    assert answer.status_code == 422
    assert said in (problem(answer, place) if place else folded(answer))
    assert form(answer, "/corpora/new").items() >= typed.items()


def test_corpus_is_forgotten_unless_a_recipe_names_it(files: Path, account: Account, browser: httpx.Client) -> None:
    used, unused = (account.corpus(name, files / "corpora" / "novel.jsonl") for name in ("classics", "other"))
    work = account.job(recipe=RECIPE)
    token = {"csrf": csrf(browser.get("/corpora"))}
    assert f'href="/variants/{work.variant_id}"' in look(browser, f"/corpora/{used}")
    assert browser.post(f"/corpora/{used}/delete", data=token).status_code == 409
    assert browser.post(f"/corpora/{unused}/delete", data=token).headers["location"] == "/corpora"


def test_text_that_went_away_is_told_on_the_corpus_s_page(
    files: Path, account: Account, browser: httpx.Client, tmp_path: Path
) -> None:
    path = write_corpus(files / "corpora" / f"{secrets.token_hex(4)}.jsonl")
    id = account.corpus("gone", path)
    path.unlink()
    assert "does not exist" in look(browser, f"/corpora/{id}")
    # a link to what nobody may read is followed no more than when it was registered
    secret = write_corpus(tmp_path / "secret.jsonl")
    path.symlink_to(secret)
    page = look(browser, f"/corpora/{id}")
    assert "lies outside the folders" in page
    assert "Document 0" not in page


def test_paths_are_offered_only_where_they_may_be_read(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    for address in ("/base-models/new", "/corpora/new"):
        assert str(dashboard.corpora.resolve()) in browser.get(address).text
    with dashboard.database.write() as session:
        session.get_one(Tenant, account.tenant_id).local_roots = []
    for address in ("/base-models/new", "/corpora/new"):
        assert 'name="path"' not in browser.get(address).text


# --- a new variant


def test_form_begins_with_a_plan(account: Account, base_model: str, browser: httpx.Client) -> None:
    page = look(browser, f"{NEW}?base_model={base_model}")
    assert "134.5 M → 95.6 M" in page
    assert "layers 4–27: 2 of 3 KV heads, 768 of 1,536 neurons" in page
    assert "no worker is running" in page
    assert '"criterion": "magnitude"' in page
    assert f'value="{account.name}/SmolLM2-135M-Instruct-loram-0.5"' in page


def test_plan_says_which_workers_take_it(
    dashboard: RunningDashboard, account: Account, base_model: str, browser: httpx.Client
) -> None:
    add_worker(dashboard.database, f"small-{HOSTILE}", 2**24)
    try:
        page = look(browser, NEW)
        assert f"small-{HOSTILE}</code> cpu, 16.0 MiB: does not hold it" in page
        assert "It would wait: stage" in page
        assert "<script>alert" not in browser.get(NEW).text
        add_worker(dashboard.database, "large", 2**36)
        page = look(browser, NEW)
        assert "large</code> cpu, 64.0 GiB: takes it" in page
        assert "It would wait" not in page
    finally:
        with dashboard.database.write() as session:
            session.execute(delete(Worker))


def test_plan_follows_the_fields_and_so_do_json_and_command(base_model: str, browser: httpx.Client) -> None:
    fields = fill(browser) | {"recipe.pruning.ratio": "0.65", "recipe.quantization.scheme": "none"}
    answer = send(browser, fields)
    assert answer.status_code == 200, answer.text
    page = folded(answer)
    assert "layers 4–27: 2 of 3 KV heads, 537 of 1,536 neurons" in page
    shown = json.loads(form(answer, NEW)["json"])
    assert shown == {"pruning": {"ratio": 0.65, "criterion": "magnitude"}, "quantization": {"scheme": "none"}}
    assert json.dumps(shown["quantization"]) in page.partition("curl ")[2]


def test_name_that_another_variant_goes_to_is_told(account: Account, base_model: str, browser: httpx.Client) -> None:
    name = f"{account.name}/taken"
    other = account.job(name, base_model)
    page = folded(send(browser, fill(browser) | {"publish.repo_id": name}))
    assert f'Another variant goes to this repository: <a href="/variants/{other.variant_id}">{name}</a>' in page
    assert "Another variant goes" not in folded(send(browser, fill(browser) | {"publish.repo_id": f"{name}-2"}))


def test_edited_json_fills_the_fields(base_model: str, browser: httpx.Client) -> None:
    pasted = {"pruning": {"ratio": 0.3, "criterion": "random", "round_to": 64}, "seed": 5}
    answer = send(browser, fill(browser) | {"json": json.dumps(pasted), "recipe.pruning.ratio": "0.9"})
    fields = form(answer, NEW)
    assert fields["recipe.pruning.ratio"] == "0.3"
    assert fields["recipe.pruning.round_to"] == "64"
    assert fields["recipe.seed"] == "5"
    assert json.loads(fields["json"]) == pasted


def test_all_faults_stand_at_their_fields_at_once(account: Account, base_model: str, browser: httpx.Client) -> None:
    typed = {
        "recipe.pruning.ratio": "1.2",
        "part:recipe.alignment": "on",
        "recipe.alignment.corpora": "nowhere",
        "recipe.alignment.batch_tokens": "many",
        "recipe.pruning.storage": HOSTILE,
        "publish.repo_id": "somebody-else/model",
        "priority": "101",
    }
    answer = send(browser, fill(browser) | typed, "submit")
    assert answer.status_code == 422
    assert problem(answer, "recipe.pruning.ratio") == "1.2 is not valid: it should be less than 1"
    assert "should be a valid integer" in problem(answer, "recipe.alignment.batch_tokens")
    assert "belongs to somebody else" in problem(answer, "publish.repo_id")
    assert "less than or equal to 100" in problem(answer, "priority")
    assert problem(answer, "recipe.pruning.storage")
    assert "<script>alert" not in answer.text
    assert form(answer, NEW).items() >= typed.items()
    # a corpus that is nowhere is told beside what is no number
    assert "There is no corpus" in problem(answer, "recipe.alignment.corpora")
    # and all places of the recipe that read text
    text = {"recipe.pruning.calibration.corpus": "nowhere", "recipe.evaluation.corpora": "neither"}
    answer = send(browser, fill(browser) | text | {"part:recipe.evaluation": "on"}, "submit")
    for place in text:
        assert "There is no corpus" in problem(answer, place)
    assert "Nothing here yet" in look(browser, "/jobs")


def test_hostile_words_stay_text_in_every_field(base_model: str, browser: httpx.Client) -> None:
    names = [name for name in fill(browser) if name.startswith(("recipe.", "publish.", "labels", "priority", "gib"))]
    parts = {"part:recipe.alignment": "on", "part:recipe.evaluation": "on"}
    answer = send(browser, fill(browser) | dict.fromkeys(names, HOSTILE) | parts, "submit")
    assert answer.status_code == 422
    back = form(answer, NEW)
    assert {back[name] for name in names} == {HOSTILE}
    pasted = send(browser, fill(browser) | {"json": json.dumps({HOSTILE: {HOSTILE: [HOSTILE]}, "pruning": HOSTILE})})
    for page in (
        answer,
        pasted,
        send(browser, fill(browser) | {"json": HOSTILE}),
        send(browser, fill(browser), HOSTILE),
    ):
        assert "<script>alert" not in page.text
        assert "<img src=x" not in page.text


def test_submitting_twice_makes_one_job_and_a_change_another(
    account: Account, base_model: str, browser: httpx.Client
) -> None:
    fields = fill(browser)
    first, second = send(browser, fields, "submit"), send(browser, fields, "submit")
    assert first.status_code == 303, first.text
    assert first.headers["location"] == second.headers["location"]
    assert "Waiting for a worker." in look(browser, first.headers["location"])
    changed = send(browser, fields | {"recipe.pruning.ratio": "0.6"}, "submit")
    assert changed.status_code == 303
    assert changed.headers["location"] != first.headers["location"]


def test_full_queue_is_told_before_and_after_submitting(
    dashboard: RunningDashboard, account: Account, base_model: str, browser: httpx.Client
) -> None:
    with dashboard.database.write() as session:
        quotas.set_limit(session, session.get_one(Tenant, account.tenant_id), JOBS_QUEUED, 0)
    assert "jobs_queued allows 0" in look(browser, NEW)
    answer = send(browser, fill(browser), "submit")
    assert answer.status_code == 422
    assert "jobs_queued allows 0" in folded(answer)


def test_presets_make_recipes_of_what_is_there(
    files: Path, account: Account, base_model: str, browser: httpx.Client
) -> None:
    fields = fill(browser)
    assert "say how much memory" in problem(send(browser, fields, "fits"), "gib").lower()
    assert "no ratio up to" in problem(send(browser, fields | {"gib": "0.1"}, "fits"), "gib").lower()
    roomy, tight = (
        json.loads(form(send(browser, fields | {"gib": gib}, "fits"), NEW)["json"]) for gib in ("24", "0.335")
    )
    assert roomy["pruning"]["ratio"] == 0.2
    assert 0.2 < tight["pruning"]["ratio"] < 0.9
    assert "alignment" not in roomy
    account.corpus("fineweb-part", files / "corpora" / "novel.jsonl")
    for preset in ("paper", "carries"):
        answer = send(browser, fields, preset)
        assert answer.status_code == 200, problem(answer, "recipe.alignment") + folded(answer)
        recipe = Recipe.model_validate_json(form(answer, NEW)["json"])
        assert recipe.alignment is not None
        assert recipe.evaluation is not None
        assert recipe.corpus_names() == ["fineweb-part"]


def test_variant_like_another_begins_with_its_recipe(
    files: Path, account: Account, base_model: str, browser: httpx.Client
) -> None:
    for name in ("classics", "docs", "novel"):
        account.corpus(name, files / "corpora" / "novel.jsonl")
    failed = account.job("org/small", base_model).start().fail(OUT_OF_DISK)
    for page in (f"/jobs/{failed.job_id}", f"/variants/{failed.variant_id}"):
        assert f'href="{NEW}?like={failed.variant_id}"' in look(browser, page)
    fields = form(browser.get(f"{NEW}?like={failed.variant_id}"), NEW)
    assert Recipe.model_validate_json(fields["json"]).digest == RECIPE.digest
    assert fields["recipe.alignment.corpora"] == "classics 3\ndocs"
    assert (fields["base_model_id"], fields["publish.repo_id"]) == (base_model, "org/small")


def test_variant_of_another_version_is_shown_with_what_is_wrong(
    account: Account, base_model: str, browser: httpx.Client
) -> None:
    stored = {"recipe": {"pruning": [1], "later": {"word": HOSTILE}}, "recipe_version": 999}
    work = account.job("org/later", base_model, stored=stored)
    answer = browser.get(f"{NEW}?like={work.variant_id}")
    assert answer.status_code == 200
    assert json.loads(form(answer, NEW)["json"]) == stored["recipe"]
    assert "there is no field 'later' here" in folded(answer).lower()
    assert "<script>alert" not in answer.text


def test_long_recipe_is_taken(base_model: str, browser: httpx.Client) -> None:
    many = ", ".join(f"corpus-{number:04}" for number in range(2000))
    answer = send(browser, fill(browser) | {"part:recipe.evaluation": "on", "recipe.evaluation.corpora": many})
    assert answer.status_code == 422
    assert len(answer.request.content) > 16_384
    assert "There is no corpus" in problem(answer, "recipe.evaluation.corpora")


# --- who may


def test_reader_may_plan_but_not_register_or_submit(
    account: Account, base_model: str, browser: httpx.Client, reader: httpx.Client
) -> None:
    page = look(reader, NEW)
    assert "134.5 M → 95.6 M" in page
    assert 'value="submit"' not in page
    assert "variants:write" in page
    fields = fill(reader)
    assert send(reader, fields).status_code == 200
    assert send(reader, fields, "submit").status_code == 403
    token = {"csrf": csrf(reader.get("/corpora"))}
    for kind in ("base-models", "corpora"):
        assert f'href="/{kind}/new"' not in reader.get(f"/{kind}").text
        assert reader.get(f"/{kind}/new").status_code == 403
        assert reader.post(f"/{kind}/new", data=token).status_code == 403
    assert reader.post(f"/base-models/{base_model}/delete", data=token).status_code == 403
    assert "New variant" not in reader.get(f"/base-models/{base_model}").text


def test_forms_of_other_sites_do_nothing(base_model: str, browser: httpx.Client) -> None:
    for address in (NEW, "/base-models/new", "/corpora/new", f"/base-models/{base_model}/delete", "/corpora/x/delete"):
        answer = browser.post(address, data={"do": "submit", "csrf": "0" * 64})
        assert answer.status_code == 403, address


def test_form_of_an_earlier_session_makes_nothing_and_loses_nothing(
    account: Account, base_model: str, browser: httpx.Client
) -> None:
    fields = fill(browser) | {"recipe.pruning.ratio": "0.35", "do": "submit"}
    assert sign_in(browser, account.key).status_code == 303
    answer = browser.post(NEW, data=fields)
    assert answer.status_code == 403
    assert "This form was of another session" in folded(answer)
    assert "Nothing here yet" in look(browser, "/jobs")
    again = form(answer, NEW)
    assert again["recipe.pruning.ratio"] == "0.35"
    assert again["csrf"] != fields["csrf"]
    assert browser.post(NEW, data=again | {"do": "submit"}).headers["location"].startswith("/jobs/job_")


def test_a_label_full_of_dots_costs_nothing(base_model: str, browser: httpx.Client) -> None:
    """Which was walked through dot by dot, at every field: 60,000 of them took minutes."""
    answer = send(browser, fill(browser) | {"labels": "a." * 60_000 + "/x=y"})
    assert answer.status_code == 422


def test_another_tenant_s_things_do_not_exist(
    files: Path, dashboard: RunningDashboard, account: Account, base_model: str
) -> None:
    corpus = account.corpus("private-text", files / "corpora" / "novel.jsonl")
    work = account.job("org/private", base_model)
    other = dashboard.account()
    other.base_model("org/own")
    with dashboard.signed_in(other) as stranger:
        for address in (f"/corpora/{corpus}", f"{NEW}?base_model={base_model}", f"{NEW}?like={work.variant_id}"):
            assert stranger.get(address).status_code == 404, address
        fields = fill(stranger) | {"base_model_id": base_model}
        for do in ("plan", "submit", "carries"):
            assert send(stranger, fields, do).status_code == 404
        token = {"csrf": fields["csrf"]}
        for address in (f"/corpora/{corpus}/delete", f"/base-models/{base_model}/delete"):
            assert stranger.post(address, data=token).status_code == 404
        for address in ("/corpora", NEW):
            assert "org/private" not in stranger.get(address).text
            assert "private-text" not in stranger.get(address).text


# --- first steps


def test_first_steps_are_ticked_one_after_the_other(
    files: Path, account: Account, browser: httpx.Client, reader: httpx.Client
) -> None:
    page = look(browser, "/jobs")
    assert page.count("data-done") == 0
    assert 'href="/base-models/new"' in page
    assert f'href="{NEW}' not in page
    id = account.base_model(HOSTILE)
    page = look(browser, "/jobs")
    assert page.count("data-done") == 1
    assert f'href="{NEW}?base_model={id}"' in page
    account.corpus("novel", files / "corpora" / "novel.jsonl")
    source = browser.get("/variants").text
    assert source.count("data-done") == 2
    assert "<script>alert" not in source
    assert "Ask somebody with the role member" in look(reader, "/jobs")
