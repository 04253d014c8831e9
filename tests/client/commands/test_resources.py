"""What people do with a service, command by command, in the three forms of answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from publisher.client import Client
from tests.api.conftest import RunningApi, Tenant, recipe
from tests.api.test_variant_files import publish
from tests.checkpoint.pruned import make_pair, save_checkpoint
from tests.client.conftest import Shell


@pytest.fixture
def base_model(api: RunningApi, signed_in: Shell) -> str:
    added = signed_in("base-models", "add", str(api.roots / "tiny"), "--published-as", "org/tiny", "-q")
    assert added.status == 0, added.err
    return added.out.strip()


@pytest.fixture
def variant(api: RunningApi, signed_in: Shell, tenant: Tenant, base_model: str, client: Client, tmp_path: Path) -> str:
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(recipe()))
    signed_in("corpora", "add", "novel", str(api.roots / "novel.jsonl"))
    order = ["org/tiny", "--recipe", str(file), "--publish", f"{tenant.name}/tiny", "--label", "team:search"]
    ordered = signed_in("submit", *order, "--set", "pruning.ratio=0.25", "-q")
    assert ordered.status == 0, ordered.err
    return ordered.out.strip()


def test_lists_are_a_table_or_lines_of_json_or_ids(signed_in: Shell, base_model: str) -> None:
    table = signed_in("base-models", "list").out.splitlines()
    assert table[0].split() == ["id", "model", "family", "parameters", "layers", "registered"]
    assert table[1].split()[:3] == [base_model, "org/tiny", "llama"]
    (line,) = signed_in("base-models", "list", "--json").out.splitlines()
    assert json.loads(line)["published_as"] == "org/tiny"
    assert signed_in("base-models", "list", "-q").out == f"{base_model}\n"


def test_an_empty_list_is_said_to_people_alone(signed_in: Shell) -> None:
    assert signed_in("jobs", "list").out == ""
    assert "No jobs" in signed_in("jobs", "list").err
    assert signed_in("jobs", "list", "--json").err == ""


def test_two_forms_at_once_are_wrong_use(signed_in: Shell) -> None:
    assert signed_in("jobs", "list", "--json", "--quiet").status == 2


def test_an_order_has_the_fields_that_were_set(signed_in: Shell, variant: str) -> None:
    shown = json.loads(signed_in("variants", "show", variant, "--json").out)
    assert (shown["recipe"]["pruning"]["ratio"], shown["labels"]) == (0.25, {"team": "search"})


def test_a_job_is_found_by_filters_and_steered(signed_in: Shell, variant: str) -> None:
    found = signed_in("jobs", "list", "--state", "queued", "--label", "team:search", "--after", "1h", "-q")
    job = found.out.strip()
    assert job.startswith("job_")
    assert signed_in("jobs", "list", "--before", "1h", "-q").out == ""
    assert "paused" in signed_in("jobs", "pause", job).out
    assert "queued" in signed_in("jobs", "resume", job).out
    assert "cancelled" in signed_in("jobs", "cancel", job).out
    assert json.loads(signed_in("jobs", "show", job, "--json").out)["state"] == "cancelled"
    assert signed_in("jobs", "logs", job).status == 0
    watched = signed_in("jobs", "watch", job)
    assert (watched.status, f"job {job} cancelled" in watched.err) == (1, True)
    assert signed_in("jobs", "pause", job).status == 4


def test_what_does_not_exist_and_what_is_refused_have_statuses_of_their_own(
    signed_in: Shell, base_model: str, tenant: Tenant
) -> None:
    assert signed_in("jobs", "show", "job_0192f3a1c2b4d5e6f7a8b9").status == 5
    wrong = signed_in("submit", base_model, "--set", "pruning.ratio=2", "--publish", f"{tenant.name}/tiny")
    assert (wrong.status, "recipe.pruning.ratio" in wrong.err) == (4, True)
    assert signed_in("submit", base_model, "--publish", "me/x").status == 2


def test_deleting_asks_first(signed_in: Shell, base_model: str) -> None:
    assert signed_in("base-models", "delete", base_model).status == 2
    assert signed_in("base-models", "list", "-q").out.strip() == base_model
    assert signed_in("base-models", "delete", base_model, "--yes").status == 0
    assert signed_in("base-models", "list", "-q").out == ""


def test_a_sweep_orders_a_variant_for_each_value(signed_in: Shell, base_model: str, tenant: Tenant) -> None:
    order = [
        "--set",
        'pruning={"criterion": "random", "protect_first": 1, "protect_last": 1}',
        "--set",
        "alignment=null",
    ]
    order += ["--set", "evaluation=null", "--vary", "pruning.ratio=0.25,0.5", "--publish", f"{tenant.name}/t-{{ratio}}"]
    done = signed_in("sweep", base_model, *order, "--json")
    assert done.status == 0, done.err
    made = [json.loads(line) for line in done.out.splitlines()]
    assert [each["values"] for each in made] == [{"pruning.ratio": 0.25}, {"pruning.ratio": 0.5}]
    assert len(signed_in("variants", "list", "-q").out.splitlines()) == 2
    (sweep,) = signed_in("sweeps", "list", "-q").out.split()
    shown = signed_in("sweeps", "show", sweep)
    assert (shown.status, "pruning.ratio=0.25" in shown.out, "queued" in shown.out) == (0, True, True), shown.err
    assert signed_in("sweeps", "show", sweep, "-q").out.split() == [each["id"] for each in made]
    assert json.loads(signed_in("sweeps", "show", sweep, "--json").out)["vary"] == {"pruning.ratio": [0.25, 0.5]}
    assert signed_in("sweeps", "delete", sweep, "--yes").status == 4, "its variants are there"
    cancelled = json.loads(signed_in("sweeps", "cancel", sweep, "--json").out)
    assert cancelled["states"]["cancelled"] == 2
    assert signed_in("sweeps", "show", "sweep_of_nobody").status == 5


def test_the_service_plans_what_is_registered_with_it(signed_in: Shell, base_model: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_text('{"pruning": {"criterion": "random", "ratio": 0.5, "protect_first": 1, "protect_last": 1}}')
    shown = signed_in("plan", "--base", "org/tiny", "--recipe", str(file))
    assert (shown.status, "memory to train LoRA on it" in shown.out) == (0, True)
    assert json.loads(signed_in("plan", "--base", base_model, "--recipe", str(file), "--json").out)["refused"] is None


def test_keys_are_made_listed_and_revoked(signed_in: Shell) -> None:
    key = signed_in("keys", "create", "ci", "--scope", "models:read", "--days", "1")
    assert (key.out.startswith("loramk_"), "models:read" in key.err) == (True, True)
    made = next(
        each for each in map(json.loads, signed_in("keys", "list", "--json").out.splitlines()) if each["name"] == "ci"
    )
    assert made["expires_at"] is not None
    assert signed_in("keys", "revoke", made["id"], "--yes").status == 0


def test_workers_are_listed(signed_in: Shell) -> None:
    assert signed_in("workers").status == 0


def test_what_was_published_is_pulled_and_checked(
    api: RunningApi, signed_in: Shell, tenant: Tenant, client: Client, variant: str, tmp_path: Path
) -> None:
    folder, name = tmp_path / "pulled", f"{tenant.name}/tiny"
    early = signed_in("pull", variant, str(folder))
    assert (early.status, "is not published" in early.err) == (4, True)
    hub = HfApi(endpoint=f"{api.url}/hub", token=tenant.key)
    checkpoint = save_checkpoint(tmp_path / "checkpoint", make_pair().pruned)
    hub.create_repo(name, private=True)
    commit = hub.upload_folder(repo_id=name, folder_path=checkpoint).oid
    publication = {"endpoint": f"{api.url}/hub", "repo_id": name, "commit": commit, "url": f"{api.url}/hub/{name}"}
    job = client.get_variant(variant)["job"]
    assert job is not None
    publish(api, job["id"], publication)
    done = signed_in("pull", name, str(folder))
    assert (done.status, done.out) == (0, f"{folder}\n"), done.err
    assert (folder / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    assert "weights/a b.bin" in signed_in("variants", "files", variant).out
