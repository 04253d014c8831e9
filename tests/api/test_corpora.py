"""Registering text."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from publisher.corpus import CorpusSource, Split
from tests.api.conftest import Body, RunningApi, created, refused, write_corpus


def post(client: httpx.Client, path: Path, name: str = "novel", **more: object) -> httpx.Response:
    return client.post("/v1/corpora", json={"name": name, "path": str(path), **more})


def test_documents_are_counted_by_side(api: RunningApi, corpus: Body) -> None:
    source = CorpusSource(name="novel", path=api.roots / "novel.jsonl")
    train, held_out = list(source.documents(Split.TRAIN)), list(source.documents(Split.HELD_OUT))
    facts = corpus["facts"]
    assert (facts["train_documents"], facts["held_out_documents"]) == (len(train), len(held_out))
    assert facts["documents"] == 50
    assert facts["characters"] == sum(map(len, train + held_out))
    assert facts["held_out_bytes"] == sum(len(text.encode()) for text in held_out)


def test_the_same_source_again_is_the_same_corpus(api: RunningApi, client: httpx.Client, corpus: Body) -> None:
    again = post(client, api.roots / "novel.jsonl")
    assert again.status_code == 200
    assert again.json() == corpus


def test_text_that_was_added_is_counted_when_registered_again(
    api: RunningApi, client: httpx.Client, tmp_path: Path
) -> None:
    path = write_corpus(api.roots / f"{tmp_path.name}.jsonl", documents=3)
    first = created(post(client, path))
    write_corpus(path, documents=5)
    again = post(client, path).json()
    assert (again["id"], again["facts"]["documents"]) == (first["id"], 5)


def test_a_name_that_is_taken_is_a_conflict(api: RunningApi, client: httpx.Client, corpus: Body) -> None:
    refused(post(client, api.roots / "novel.jsonl", held_out_fraction=0.5), 409, "name")


def test_two_tenants_may_use_one_name(api: RunningApi, stranger: httpx.Client, corpus: Body) -> None:
    assert created(post(stranger, api.roots / "novel.jsonl"))["id"] != corpus["id"]


@pytest.mark.parametrize(
    ("content", "field", "message"),
    [
        ('{"text": "a"}\nnot json\n', "path", "line 2 is not JSON"),
        ('{"text": "a"}\n{"other": 1}\n', "text_field", "line 2 has no text in field 'text'"),
        ("", "path", "holds no text"),
        ('{"text": "  "}\n', "path", "holds no text"),
    ],
)
def test_files_that_hold_no_text_are_refused(
    api: RunningApi, client: httpx.Client, tmp_path: Path, content: str, field: str, message: str
) -> None:
    path = api.roots / f"{tmp_path.name}.jsonl"
    path.write_text(content)
    assert message in refused(post(client, path), 422, field)
    assert client.get("/v1/corpora").json()["items"] == []


def test_a_path_that_is_not_there_is_named(api: RunningApi, client: httpx.Client) -> None:
    assert "does not exist" in refused(post(client, api.roots / "none.jsonl"), 422, "path")


def test_a_path_outside_the_roots_is_refused(client: httpx.Client, tmp_path: Path) -> None:
    assert "PUBLISHER_LOCAL_ROOTS" in refused(post(client, write_corpus(tmp_path / "x.jsonl")), 422, "path")


def test_a_link_inside_a_folder_does_not_lead_out(api: RunningApi, client: httpx.Client, tmp_path: Path) -> None:
    folder = api.roots / tmp_path.name
    folder.mkdir()
    (folder / "x.jsonl").symlink_to(write_corpus(tmp_path / "x.jsonl"))
    assert "lies outside" in refused(post(client, folder), 422, "path")


@pytest.mark.parametrize("name", ["", "a b", "../x", "a" * 97])
def test_a_bad_name_is_refused(api: RunningApi, client: httpx.Client, name: str) -> None:
    refused(post(client, api.roots / "novel.jsonl", name=name), 422, "name")


def test_half_of_a_surrogate_pair_is_refused(api: RunningApi, client: httpx.Client, tmp_path: Path) -> None:
    path = api.roots / f"{tmp_path.name}.jsonl"
    path.write_text(json.dumps({"text": "\ud800"}) + "\n")
    assert "surrogate" in refused(post(client, path), 422, "path")


def test_somebody_elses_corpus_is_not_found(stranger: httpx.Client, corpus: Body) -> None:
    refused(stranger.get(f"/v1/corpora/{corpus['id']}"), 404)
