"""Registering base models: what is read of them, and everything that refuses one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.api.conftest import Body, RunningApi, Tenant, created, refused
from tests.models import byte_tokenizer, tiny_llama


def register(client: httpx.Client, path: Path) -> httpx.Response:
    return client.post("/v1/base-models", json={"path": str(path)})


@pytest.fixture
def model(api: RunningApi, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return Path(shutil.copytree(api.roots / "tiny", api.roots / tmp_path.name / "model"))


def test_counts_are_those_of_the_model(api: RunningApi, base_model: Body) -> None:
    model = AutoModelForCausalLM.from_pretrained(api.roots / "tiny")
    assert base_model["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert base_model["bytes"] == (api.roots / "tiny" / "model.safetensors").stat().st_size
    assert base_model["geometry"]["layers"] == 4


def test_registering_twice_gives_the_same_base_model(api: RunningApi, client: httpx.Client, base_model: Body) -> None:
    again = register(client, api.roots / "tiny")
    assert again.status_code == 200
    assert again.json() == base_model
    assert len(client.get("/v1/base-models").json()["items"]) == 1


def test_a_folder_may_have_the_name_that_others_know(api: RunningApi, client: httpx.Client, base_model: Body) -> None:
    body = {"path": str(api.roots / "tiny"), "published_as": "org/tiny"}
    named = created(client.post("/v1/base-models", json=body))
    assert (base_model["published_as"], named["published_as"]) == (None, "org/tiny")
    assert named["path"] == base_model["path"]
    again = client.post("/v1/base-models", json=body)
    assert (again.status_code, again.json()) == (200, named)


@pytest.mark.parametrize("name", ["/models/tiny", "tiny", "org/tiny/one", "org/ti ny"])
def test_a_name_that_is_no_repository_s_is_refused(api: RunningApi, client: httpx.Client, name: str) -> None:
    body = {"path": str(api.roots / "tiny"), "published_as": name}
    assert f"published_as {name!r}" in refused(client.post("/v1/base-models", json=body), 422, "published_as")


def test_a_repository_keeps_its_own_name(client: httpx.Client) -> None:
    answer = client.post("/v1/base-models", json={"repo_id": "org/base", "published_as": "org/other"})
    assert answer.status_code == 422
    assert "a repository is published under its own name" in answer.text


def test_a_repository_is_pinned_to_its_commit(api: RunningApi, tenant: Tenant, client: httpx.Client) -> None:
    hub = HfApi(endpoint=f"{api.url}/hub", token=tenant.key)
    repo = hub.create_repo(f"{tenant.name}/base").repo_id
    commit = hub.upload_folder(repo_id=repo, folder_path=api.roots / "tiny").oid
    first = created(client.post("/v1/base-models", json={"repo_id": repo}))
    assert first["revision"] == commit
    assert first["path"] is None
    hub.upload_file(repo_id=repo, path_or_fileobj=b"new", path_in_repo="NOTES.txt")
    assert client.post("/v1/base-models", json={"repo_id": repo, "revision": commit}).json() == first
    assert created(client.post("/v1/base-models", json={"repo_id": repo}))["revision"] != commit


def test_a_sharded_repository_is_read_by_headers(api: RunningApi, tenant: Tenant, client: httpx.Client) -> None:
    folder = tiny_llama(api.roots / tenant.name, max_shard_size="20KB")
    hub = HfApi(endpoint=f"{api.url}/hub", token=tenant.key)
    repo = hub.create_repo(f"{tenant.name}/sharded").repo_id
    hub.upload_folder(repo_id=repo, folder_path=folder)
    from_hub = created(client.post("/v1/base-models", json={"repo_id": repo}))
    from_folder = created(register(client, folder))
    for field in ("geometry", "parameters", "bytes", "dtype"):
        assert from_hub[field] == from_folder[field]


def test_a_repositorys_other_head_and_what_goes_along_are_seen(
    api: RunningApi, tenant: Tenant, client: httpx.Client
) -> None:
    """Of the two matrices pieces are read: they have more values than that."""
    folder = tiny_llama(api.roots / tenant.name, tie_word_embeddings=True, vocab_size=4096)
    weights = load_file(folder / "model.safetensors")
    head = {"lm_head.weight": weights["model.embed_tokens.weight"] * 1.5}
    save_file(weights | head, folder / "model.safetensors")
    for name in ("README.md", "LICENSE", "trainer_state.json", "additional_chat_templates/a.jinja"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("text")
    hub = HfApi(endpoint=f"{api.url}/hub", token=tenant.key)
    repo = hub.create_repo(f"{tenant.name}/other-head").repo_id
    hub.upload_folder(repo_id=repo, folder_path=folder)
    found = created(client.post("/v1/base-models", json={"repo_id": repo}))
    assert not found["geometry"]["tied_embeddings"]
    assert "config.json ties lm_head.weight" in found["notes"][0]
    assert {"README.md", "LICENSE", "additional_chat_templates/a.jinja"} <= found["files"].keys()
    assert "trainer_state.json" not in found["files"]
    pruning = {"criterion": "magnitude", "ratio": 0.5, "protect_first": 1, "protect_last": 1}
    body = {"base_model_id": found["id"], "recipe": {"pruning": pruning}}
    planned = client.post("/v1/plans", json=body).json()
    assert planned["parameters"]["base"] == found["parameters"]
    assert found["notes"][0] in planned["notes"]


def test_a_repository_that_is_not_there_is_named(client: httpx.Client) -> None:
    message = refused(client.post("/v1/base-models", json={"repo_id": "nobody/nothing"}), 422, "repo_id")
    assert "nobody/nothing" in message


def test_a_revision_that_is_not_there_is_named(api: RunningApi, tenant: Tenant, client: httpx.Client) -> None:
    repo = HfApi(endpoint=f"{api.url}/hub", token=tenant.key).create_repo(f"{tenant.name}/empty").repo_id
    body = {"repo_id": repo, "revision": "v9"}
    assert "'v9'" in refused(client.post("/v1/base-models", json=body), 422, "revision")


def test_a_bad_repository_id_is_refused(client: httpx.Client) -> None:
    refused(client.post("/v1/base-models", json={"repo_id": "a b/c"}), 422, "repo_id")


@pytest.mark.parametrize(
    "body", [{}, {"repo_id": "a/b", "path": "/c"}, {"path": "/c", "revision": "main"}, {"repository": "a/b"}]
)
def test_a_body_that_names_no_single_source_is_refused(client: httpx.Client, body: Body) -> None:
    refused(client.post("/v1/base-models", json=body), 422)


def test_a_folder_that_is_not_there_is_named(api: RunningApi, client: httpx.Client) -> None:
    assert "does not exist" in refused(register(client, api.roots / "none"), 422, "path")


def test_a_path_outside_the_roots_says_which_setting_widens_them(client: httpx.Client, tmp_path: Path) -> None:
    message = refused(register(client, tiny_llama(tmp_path / "outside")), 422, "path")
    assert "PUBLISHER_LOCAL_ROOTS" in message


@pytest.mark.parametrize("escape", ["../../../../../etc", "tiny/../../../data"])
def test_dots_do_not_lead_out_of_the_roots(api: RunningApi, client: httpx.Client, escape: str) -> None:
    assert "lies outside" in refused(
        client.post("/v1/base-models", json={"path": f"{api.roots}/{escape}"}), 422, "path"
    )


def test_a_linked_folder_does_not_lead_out_of_the_roots(model: Path, client: httpx.Client, tmp_path: Path) -> None:
    link = model.parent / "link"
    link.symlink_to(tiny_llama(tmp_path / "outside"))
    assert "lies outside" in refused(register(client, link), 422, "path")


def test_a_linked_file_does_not_lead_out_of_the_roots(model: Path, client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (model / "generation_config.json").unlink()
    (model / "generation_config.json").symlink_to(tmp_path / "secret.json")
    assert "lies outside" in refused(register(client, model), 422, "path")


def drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def remote_code(folder: Path) -> None:
    change_config(folder, auto_map={"AutoModelForCausalLM": "modeling_x.X"})


def another_family(folder: Path) -> None:
    change_config(folder, model_type="mamba")


def cut_off(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def pointer(folder: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4952\n"
    (folder / "model.safetensors").write_text(text)


def nested(folder: Path) -> None:
    (folder / "config.json").write_text('{"a":' * 100_000)


def not_a_number(folder: Path) -> None:
    change_config(folder, rms_norm_eps=float("nan"))


def end_of_text_beyond(folder: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"<{index}>" for index in range(62)])
    tokenizer.eos_token = "<61>"
    tokenizer.save_pretrained(folder)


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_weights, "neither model.safetensors"),
        (only_pickles, "pytorch_model.bin"),
        (remote_code, "remote code"),
        (another_family, "'mamba' is not supported"),
        (cut_off, "is truncated"),
        (pointer, "is a Git LFS pointer"),
        (nested, "nested too deep"),
        (not_a_number, "rms_norm_eps = NaN"),
        (end_of_text_beyond, "'<61>'"),
    ],
)
def test_a_model_that_cannot_be_pruned_is_refused_and_not_kept(
    model: Path, client: httpx.Client, damage: Callable[[Path], None], message: str
) -> None:
    damage(model)
    assert message in refused(register(client, model), 422)
    assert client.get("/v1/base-models").json()["items"] == []


def test_somebody_elses_base_model_is_not_found(client: httpx.Client, stranger: httpx.Client, base_model: Body) -> None:
    assert client.get(f"/v1/base-models/{base_model['id']}").json() == base_model
    refused(stranger.get(f"/v1/base-models/{base_model['id']}"), 404)
    refused(stranger.delete(f"/v1/base-models/{base_model['id']}"), 404)
    assert stranger.get("/v1/base-models").json()["items"] == []


def test_a_base_model_can_be_forgotten_until_a_variant_uses_it(
    client: httpx.Client, base_model: Body, variant_body: Body
) -> None:
    variant = created(client.post("/v1/variants", json=variant_body))
    assert f"is used by variant {variant['id']}" in refused(client.delete(f"/v1/base-models/{base_model['id']}"), 409)


def test_an_unused_base_model_is_forgotten(client: httpx.Client, base_model: Body) -> None:
    assert client.delete(f"/v1/base-models/{base_model['id']}").status_code == 204
    refused(client.get(f"/v1/base-models/{base_model['id']}"), 404)
