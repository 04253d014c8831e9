"""Corpora from datasets: what is read, that it is read once, and what a dataset's author cannot make us read."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from publisher.corpus.dataset import HubAccess, HubDataset
from publisher.corpus.source import CorpusSource, DatasetShelf, Split
from publisher.errors import HubUnavailable, InfrastructureFault, JobCancelled, RequestFault
from tests.dataset_hub import COMMIT, LATER, DatasetHub, serve_datasets
from tests.servers import free_port

TEXTS = [f"document number {number}" for number in range(40)]


def jsonl(texts: list[str], column: str = "text") -> bytes:
    return "".join(json.dumps({column: text}) + "\n" for text in texts).encode()


def table(texts: list[str]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"id": range(len(texts)), "text": texts}), buffer)
    return buffer.getvalue()


def damaged_table() -> bytes:
    """Its first page cannot be unpacked, its footer is whole."""
    whole = bytearray(table(TEXTS * 20))
    whole[60:90] = b"\xff" * 30
    return bytes(whole)


def damaged_gzip() -> bytes:
    """Flipped bytes amid the compressed data."""
    packed = bytearray(gzip.compress(jsonl(TEXTS * 500), mtime=0))
    packed[200:230] = bytes(byte ^ 0xFF for byte in packed[200:230])
    return bytes(packed)


def card(data_files: str) -> bytes:
    return f"---\nconfigs:\n- config_name: default\n  data_files: {json.dumps(data_files)}\n---\n".encode()


CONFIGS = b"""---
configs:
- config_name: a
  data_files: [{split: train, path: a/*.jsonl}, {split: test, path: test.jsonl}]
- config_name: b
  data_files: b.jsonl
---
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatasetHub]:
    secret = tmp_path_factory.mktemp("secret") / "secret.jsonl"
    secret.write_bytes(jsonl(["somebody else's"]))
    with serve_datasets() as hub:
        hub.repos = {
            "org/lines": {"train.jsonl": jsonl(TEXTS)},
            "org/table": {"data/train-00000-of-00001.parquet": table(TEXTS)},
            "org/configs": {
                "README.md": CONFIGS,
                "a/1.jsonl": jsonl(TEXTS[:2]),
                "a/2.jsonl": jsonl(TEXTS[2:4]),
                "test.jsonl": jsonl(TEXTS[4:5]),
                "b.jsonl": jsonl(TEXTS[5:7]),
            },
            "org/script": {"script.py": b"raise SystemExit('ran')", "train.jsonl": jsonl(TEXTS)},
            "org/gated": {"train.jsonl": jsonl(TEXTS)},
            "org/empty": {"README.md": b"nothing"},
            "org/damaged": {"train.jsonl": b'{"text": "a"}\n{"text": \n'},
            "org/page": {"train.parquet": damaged_table()},
            "org/flipped": {"train.jsonl.gz": damaged_gzip()},
            "org/truncated": {"train.jsonl.gz": gzip.compress(jsonl(TEXTS), mtime=0)[:-20]},
            "org/pointer": {"train.parquet": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"},
            "org/blank": {"train.jsonl": jsonl(["", "  ", "text"])},
            "org/numbers": {"train.jsonl": b'{"text": 1}\n'},
            "org/thief": {"README.md": card(str(secret))},
            "org/program": {"train.xml": b"<a/>"},
            "org/other": {"README.md": card("hf://datasets/org/lines/train.jsonl")},
        }
        hub.gated = {"org/gated"}
        yield hub


def corpus(hub: DatasetHub, folder: Path, repo_id: str = "org/lines", **more: object) -> CorpusSource:
    dataset = HubDataset.model_validate({"repo_id": repo_id, "revision": COMMIT} | more)
    return CorpusSource(name="c", dataset=dataset, shelf=DatasetShelf(folder, HubAccess(hub.endpoint)))


@pytest.mark.parametrize("repo_id", ["org/lines", "org/table"])
def test_every_format_reads_the_same_documents(hub: DatasetHub, repo_id: str, tmp_path: Path) -> None:
    assert list(corpus(hub, tmp_path, repo_id).documents()) == TEXTS


def test_a_dataset_is_split_like_the_same_text_in_a_file(hub: DatasetHub, tmp_path: Path) -> None:
    (tmp_path / "same.jsonl").write_bytes(jsonl(TEXTS))
    same = CorpusSource(name="c", path=tmp_path / "same.jsonl")
    for split in Split:
        assert list(corpus(hub, tmp_path).documents(split)) == list(same.documents(split))


def test_a_dataset_is_read_once(hub: DatasetHub, tmp_path: Path) -> None:
    source = corpus(hub, tmp_path)
    source.prepare()
    del hub.downloads[:]
    assert len(list(source.documents(Split.TRAIN))) == 36
    assert len(list(corpus(hub, tmp_path).documents(Split.HELD_OUT))) == 4
    assert hub.downloads == []


def test_a_damaged_copy_is_the_machine_s_fault_and_read_again(hub: DatasetHub, tmp_path: Path) -> None:
    source = corpus(hub, tmp_path)
    source.prepare()
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:-10])
    with pytest.raises(InfrastructureFault, match=r"the copy of dataset org/lines .* was damaged"):
        list(source.documents())
    assert list(source.documents()) == TEXTS


def test_no_more_documents_are_read_than_asked_for(hub: DatasetHub, tmp_path: Path) -> None:
    assert list(corpus(hub, tmp_path, documents=3).documents()) == TEXTS[:3]


def test_blank_rows_count_but_are_no_documents(hub: DatasetHub, tmp_path: Path) -> None:
    assert list(corpus(hub, tmp_path, "org/blank", documents=3).documents()) == ["text"]


@pytest.mark.parametrize(
    ("config", "split", "expected"), [("a", "train", TEXTS[:4]), ("a", "test", TEXTS[4:5]), ("b", "train", TEXTS[5:7])]
)
def test_config_and_split_choose_the_files(
    hub: DatasetHub, config: str, split: str, expected: list[str], tmp_path: Path
) -> None:
    assert list(corpus(hub, tmp_path, "org/configs", config=config, split=split).documents()) == expected


@pytest.mark.parametrize(
    ("repo_id", "more", "message"),
    [
        ("org/none", {}, "doesn't exist"),
        ("org/gated", {}, "gated.*PUBLISHER_BASE_MODEL_TOKEN"),
        ("org/script", {}, "[Ss]cripts are no longer supported"),
        ("org/empty", {}, "cannot be read"),
        ("org/damaged", {}, "cannot be read"),
        ("org/page", {}, "cannot be read"),
        ("org/flipped", {}, "cannot be read"),
        ("org/truncated", {}, "cannot be read"),
        ("org/pointer", {}, "cannot be read"),
        ("org/numbers", {}, "row 1 has no text"),
        ("org/lines", {"split": "nowhere"}, "nowhere"),
        ("org/configs", {}, "a.*b"),
        ("org/configs", {"config": "c"}, "'c' not found"),
        ("org/program", {}, "read as xml, which is not plain text"),
        ("org/thief", {}, "Data files don't belong to org/"),
        ("org/other", {}, "Data files don't belong to org/"),
    ],
)
def test_what_cannot_be_read_is_the_request_s_fault(
    hub: DatasetHub, repo_id: str, more: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestFault, match=f"(?s){message}"):
        list(corpus(hub, tmp_path, repo_id, **more).documents())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("repo_id", ["org/lines", "org/table"])
def test_a_missing_column_says_which_there_are(hub: DatasetHub, repo_id: str, tmp_path: Path) -> None:
    source = corpus(hub, tmp_path, repo_id).model_copy(update={"text_field": "body"})
    with pytest.raises(RequestFault, match=r"no column 'body'. Columns: .*text"):
        source.prepare()


def test_a_hub_that_is_away_is_nobody_s_fault(tmp_path: Path) -> None:
    away = DatasetHub(endpoint=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(HubUnavailable, match="org/lines"):
        corpus(away, tmp_path).prepare()
    with pytest.raises(HubUnavailable, match="did not answer"):
        HubAccess(away.endpoint).pin("org/lines", None)


def test_a_hub_that_limits_the_rate_says_how_long(hub: DatasetHub, tmp_path: Path) -> None:
    hub.limited["org/lines"] = "3600"
    try:
        with pytest.raises(HubUnavailable, match="org/lines") as caught:
            corpus(hub, tmp_path).prepare()
    finally:
        hub.limited.clear()
    assert caught.value.retry_after == 3600


def test_who_is_cancelled_leaves_nothing(hub: DatasetHub, tmp_path: Path) -> None:
    def cancelled() -> None:
        raise JobCancelled("the job was cancelled.")

    with pytest.raises(JobCancelled):
        corpus(hub, tmp_path).prepare(cancelled)
    assert not list(tmp_path.iterdir())


def test_the_digest_follows_what_is_read_and_needs_no_hub(tmp_path: Path) -> None:
    away = DatasetHub(endpoint="http://127.0.0.1:9")
    changes: list[dict[str, object]] = [{}, {"split": "test"}, {"config": "b"}, {"documents": 5}, {"revision": LATER}]
    sources = [corpus(away, tmp_path, "org/lines", **change) for change in changes]
    sources.append(corpus(away, tmp_path, "org/table"))
    sources.append(sources[0].model_copy(update={"held_out_fraction": 0.5}))
    assert len({source.content_digest() for source in sources}) == len(sources)
    assert corpus(away, tmp_path / "elsewhere").content_digest() == sources[0].content_digest()
