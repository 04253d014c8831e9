"""Text from files: every format reads the same, and no document is on both sides of the split."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from publisher.corpus import CorpusSource, Split
from publisher.errors import RequestFault

TEXTS = [f"document number {number}" for number in range(40)]


def jsonl(texts: list[str]) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """The same documents in every format."""
    made = {kind: tmp_path / kind for kind in ("jsonl", "gzip", "parquet", "text")}
    for folder in made.values():
        folder.mkdir()
    (made["jsonl"] / "a.jsonl").write_text(jsonl(TEXTS))
    (made["gzip"] / "a.jsonl.gz").write_bytes(gzip.compress(jsonl(TEXTS).encode()))
    parquet.write_table(pyarrow.table({"text": TEXTS}), made["parquet"] / "a.parquet")
    for number, text in enumerate(TEXTS):
        (made["text"] / f"{number:02}.txt").write_text(text)
    return made


@pytest.mark.parametrize("kind", ["jsonl", "gzip", "parquet", "text"])
def test_every_format_reads_the_same_documents(folders: dict[str, Path], kind: str) -> None:
    assert list(CorpusSource(name="c", path=folders[kind]).documents()) == TEXTS


def test_the_split_is_whole_and_disjoint(folders: dict[str, Path]) -> None:
    source = CorpusSource(name="c", path=folders["jsonl"], held_out_fraction=0.25)
    held_out, train = list(source.documents(Split.HELD_OUT)), list(source.documents(Split.TRAIN))
    assert len(held_out) == 10
    assert sorted(held_out + train) == sorted(TEXTS)


def test_the_split_does_not_depend_on_order(folders: dict[str, Path], tmp_path: Path) -> None:
    mixed = random.Random(0).sample(TEXTS, len(TEXTS))
    (tmp_path / "mixed.jsonl").write_text(jsonl(mixed))
    before = CorpusSource(name="c", path=folders["jsonl"]).documents(Split.HELD_OUT)
    after = CorpusSource(name="c", path=tmp_path / "mixed.jsonl").documents(Split.HELD_OUT)
    assert set(before) == set(after)


def test_equal_documents_fall_on_one_side(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(jsonl(TEXTS * 2))
    source = CorpusSource(name="c", path=tmp_path, held_out_fraction=0.5)
    assert not set(source.documents(Split.TRAIN)) & set(source.documents(Split.HELD_OUT))


def test_nothing_held_out_is_possible(folders: dict[str, Path]) -> None:
    source = CorpusSource(name="c", path=folders["jsonl"], held_out_fraction=0)
    assert not list(source.documents(Split.HELD_OUT))
    assert len(list(source.documents(Split.TRAIN))) == len(TEXTS)


def test_the_digest_follows_the_content(folders: dict[str, Path]) -> None:
    source = CorpusSource(name="c", path=folders["jsonl"])
    before = source.content_digest()
    assert source.content_digest() == before
    (folders["jsonl"] / "a.jsonl").write_text(jsonl(TEXTS[1:]))
    assert source.content_digest() != before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"text": \n', "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", b'["text"]\n', "line 1 is not a JSON object"),
        ("a.jsonl", b'{"content": "x"}\n', "line 1 has no text in field 'text'"),
        ("a.jsonl", b"\xff\n", "a.jsonl, line 1 is not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n', mtime=0)[:-6], "a.jsonl.gz is damaged"),
        ("a.txt", b"\xff", "a.txt, line 1 is not UTF-8"),
        ("a.csv", b"text", "holds no .jsonl"),
    ],
)
def test_files_that_cannot_be_read_are_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestFault, match=message):
        list(CorpusSource(name="c", path=tmp_path).documents())


def test_a_parquet_file_without_the_column_says_which_there_are(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"body": TEXTS}), tmp_path / "a.parquet")
    with pytest.raises(RequestFault, match="Columns: body"):
        list(CorpusSource(name="c", path=tmp_path).documents())


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestFault, match="does not exist"):
        CorpusSource(name="c", path=tmp_path / "nowhere").files()
