"""Registering text."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from publisher.api import corpora
from publisher.corpus.source import CorpusSource, Split
from publisher.store.resources import find_corpus
from tests.api.conftest import Body, RunningApi, Tenant, created, recipe, refused, serve_api, write_corpus
from tests.dataset_hub import COMMIT, LATER, DatasetHub, serve_datasets
from tests.models import tiny_llama


def post(client: httpx.Client, path: Path, name: str = "novel", **more: object) -> httpx.Response:
    return client.post("/v1/corpora", json={"name": name, "path": str(path), **more})


def test_documents_are_counted_by_side(api: RunningApi, corpus: Body) -> None:
    source = CorpusSource(name="novel", path=api.roots / "novel.jsonl")
    train, held_out = list(source.documents(Split.TRAIN)), list(source.documents(Split.HELD_OUT))
    facts = corpus["facts"]
    assert (facts["train_documents"], facts["held_out_documents"]) == (len(train), len(held_out))
    assert facts["documents"] == 100
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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a", "x": ' + b"[" * 100_000, "line 1 is nested too deeply"),
        ("a.jsonl", b'{"text": "caf\xe9"}', "line 1 is not UTF-8"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "Git LFS pointer"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 2000, mtime=0)[:-20], "is damaged"),
        ("a.parquet", b"", "is empty"),
        ("a.parquet", b"PAR1 and then nothing", "is damaged or not Parquet"),
        ("a.json", b'[{"text": "a"}]', "holds no .jsonl"),
    ],
)
def test_damaged_files_are_refused_by_name(
    api: RunningApi, client: httpx.Client, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    folder = api.roots / tmp_path.name
    folder.mkdir()
    (folder / name).write_bytes(content)
    said = refused(post(client, folder), 422, "path")
    assert message in said
    assert name in said


def test_a_pipe_in_a_folder_does_not_hang(api: RunningApi, client: httpx.Client, tmp_path: Path) -> None:
    folder = api.roots / tmp_path.name
    folder.mkdir()
    os.mkfifo(folder / "a.jsonl")
    assert "a.jsonl is a pipe" in refused(post(client, folder), 422, "path")


def test_names_that_are_no_text_are_no_obstacle_to_saying_so(
    api: RunningApi, client: httpx.Client, tmp_path: Path
) -> None:
    folder = api.roots / tmp_path.name
    folder.mkdir()
    path = os.fsencode(folder) + b"/caf\xe9.jsonl"
    with open(path, "w") as lines:
        lines.write('{"\\ud800": "a"}\n')
    said = refused(post(client, folder), 422, "text_field")
    assert said.startswith(
        "corpus novel: caf\\udce9.jsonl, line 1 has no text in field 'text': its fields are \\ud800."
    )


def test_marks_and_long_numbers_are_no_obstacle(api: RunningApi, client: httpx.Client, tmp_path: Path) -> None:
    path = api.roots / f"{tmp_path.name}.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a", "n": ' + b"1" * 5000 + b'}\r\n{"text": "b"}\r\n')
    assert created(post(client, path))["facts"]["documents"] == 2


def test_a_corpus_of_one_document_is_cut_and_says_so(api: RunningApi, client: httpx.Client, tmp_path: Path) -> None:
    path = api.roots / f"{tmp_path.name}.txt"
    path.write_text("\n\n".join(f"Paragraph {number}. " + "word " * 100 for number in range(200)))
    facts = created(post(client, path))["facts"]
    assert facts["is_one_document"]
    assert facts["held_out_bytes"] == pytest.approx(0.1 * path.stat().st_size, rel=0.1)
    assert facts["train_bytes"] + facts["held_out_bytes"] == path.stat().st_size
    assert post(client, path).status_code == 200


def test_somebody_elses_corpus_is_not_found(stranger: httpx.Client, corpus: Body) -> None:
    refused(stranger.get(f"/v1/corpora/{corpus['id']}"), 404)


@pytest.fixture(scope="module")
def hub() -> Iterator[DatasetHub]:
    with serve_datasets() as hub:
        lines = "".join(json.dumps({"text": f"Document {index}"}) + "\n" for index in range(20)).encode()
        hub.repos = {"org/lines": {"train.jsonl": lines}, "org/gated": {"train.jsonl": lines}}
        hub.gated = {"org/gated"}
        yield hub


@pytest.fixture(scope="module")
def other_api(hub: DatasetHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    """A service whose base models and datasets come from `hub`."""
    with serve_api(tmp_path_factory.mktemp("api"), base_model_endpoint=hub.endpoint) as running:
        yield running


@pytest.fixture
def other_tenant(other_api: RunningApi) -> Tenant:
    return other_api.tenant()


@pytest.fixture
def other(other_tenant: Tenant) -> Iterator[httpx.Client]:
    with other_tenant.client() as client:
        yield client


def post_dataset(client: httpx.Client, dataset: str = "org/lines", **more: object) -> httpx.Response:
    return client.post("/v1/corpora", json={"name": "novel", "dataset": dataset, **more})


def test_a_dataset_is_pinned_and_not_counted(other: httpx.Client) -> None:
    corpus = created(post_dataset(other, documents=500))
    dataset = {"dataset": "org/lines", "config": None, "split": "train", "revision": COMMIT, "documents": 500}
    assert corpus == corpus | dataset | {"path": None, "facts": None, "text_field": "text"}
    assert other.get(f"/v1/corpora/{corpus['id']}").json() == corpus
    assert other.get("/v1/corpora").json()["items"] == [corpus]
    again = post_dataset(other, documents=500)
    assert (again.status_code, again.json()) == (200, corpus)


def test_another_commit_under_the_same_name_is_a_conflict(other: httpx.Client) -> None:
    created(post_dataset(other))
    refused(post_dataset(other, revision=LATER), 409, "name")


def test_two_tenants_may_name_a_dataset_alike(other: httpx.Client, other_api: RunningApi) -> None:
    first = created(post_dataset(other))
    with other_api.tenant().client() as somebody:
        assert created(post_dataset(somebody, documents=7))["id"] != first["id"]
        refused(somebody.get(f"/v1/corpora/{first['id']}"), 404)


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"dataset": "org/none"}, "dataset", "there is no dataset org/none"),
        ({"dataset": "org/gated"}, "dataset", "gated"),
        ({"revision": "v9"}, "revision", "has no revision 'v9'"),
        ({"split": "nowhere"}, "dataset", "nowhere"),
        ({"text_field": "body"}, "text_field", "no column 'body'"),
        ({"documents": 0}, "documents", "greater than or equal to 1"),
        ({"dataset": "lines"}, "dataset", "lines"),
        ({"dataset": "/etc/passwd"}, "dataset", "passwd"),
    ],
)
def test_datasets_that_cannot_be_read_are_refused(
    other: httpx.Client, body: dict[str, object], field: str, message: str
) -> None:
    assert message in refused(
        other.post("/v1/corpora", json={"name": "novel", "dataset": "org/lines", **body}), 422, field
    )
    assert other.get("/v1/corpora").json()["items"] == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, 'either "path" or "dataset"'),
        ({"path": "/x", "dataset": "org/lines"}, 'either "path" or "dataset"'),
        ({"path": "/x", "split": "test"}, '"split" belongs to "dataset"'),
    ],
)
def test_a_corpus_has_one_source(other: httpx.Client, body: dict[str, str], message: str) -> None:
    assert message in other.post("/v1/corpora", json={"name": "novel", **body}).text.replace("\\", "")


def test_a_recipe_may_name_a_dataset(other: httpx.Client, other_api: RunningApi, other_tenant: Tenant) -> None:
    base = created(other.post("/v1/base-models", json={"path": str(tiny_llama(other_api.roots / "tiny"))}))
    created(post_dataset(other))
    publish = {"repo_id": f"{other_tenant.name}/tiny", "private": False}
    body = {"base_model_id": base["id"], "recipe": recipe(), "publish": publish}
    assert created(other.post("/v1/variants", json=body))["job"]["state"] == "queued"


def test_source_that_another_request_registers_just_now_is_the_same_corpus(
    api: RunningApi, client: httpx.Client, corpus: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL does not show what the other one has not committed."""
    unseen = iter([None, None])
    monkeypatch.setattr(corpora, "find_corpus", lambda *which: next(unseen, find_corpus(*which)))
    again = post(client, api.roots / "novel.jsonl")
    assert (again.status_code, again.json()) == (200, corpus)
