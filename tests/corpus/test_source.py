"""Text from files: every format reads the same, and no document is on both sides of the split."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from publisher.corpus.source import CorpusSource, Split
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


def test_digests_of_files_that_were_always_read_so_stay(folders: dict[str, Path]) -> None:
    """Finished stages are named by them: sha256 over the fields, and over the files' own."""
    content = (folders["jsonl"] / "a.jsonl").read_bytes()
    expected = hashlib.sha256(b"text\n0.1\n" + hashlib.sha256(content).digest()).hexdigest()
    assert CorpusSource(name="c", path=folders["jsonl"]).content_digest() == expected


def test_digests_of_files_that_are_read_otherwise_now_are_others(folders: dict[str, Path], tmp_path: Path) -> None:
    def as_ever(path: Path) -> str:
        return hashlib.sha256(b"text\n0.1\n" + hashlib.sha256(path.read_bytes()).digest()).hexdigest()

    (tmp_path / "one.jsonl").write_text(jsonl(TEXTS[:1]))
    (tmp_path / "marked").mkdir()
    (tmp_path / "marked" / "a.txt").write_bytes(b"\xef\xbb\xbftext")
    assert CorpusSource(name="c", path=tmp_path / "one.jsonl").content_digest() != as_ever(tmp_path / "one.jsonl")
    marked = CorpusSource(name="c", path=tmp_path / "marked", held_out_fraction=0)
    (tmp_path / "marked" / "b.txt").write_text("other")
    before = marked.content_digest()
    (tmp_path / "marked" / "a.txt").write_bytes(b"text")
    assert marked.content_digest() != before


def test_a_file_that_changes_between_digest_and_reading_is_refused(folders: dict[str, Path]) -> None:
    source = CorpusSource(name="c", path=folders["jsonl"])
    source.content_digest()
    (folders["jsonl"] / "a.jsonl").write_text(jsonl(TEXTS[1:]))
    with pytest.raises(RequestFault, match=r"corpus c: a.jsonl changed"):
        list(source.documents(Split.TRAIN))


def test_a_file_that_comes_between_digest_and_reading_is_refused(folders: dict[str, Path]) -> None:
    source = CorpusSource(name="c", path=folders["jsonl"])
    source.content_digest()
    (folders["jsonl"] / "b.jsonl").write_text(jsonl(TEXTS))
    with pytest.raises(RequestFault, match=r"corpus c: b.jsonl changed"):
        list(source.documents())


def test_a_file_that_changes_while_it_is_read_is_refused(folders: dict[str, Path]) -> None:
    documents = CorpusSource(name="c", path=folders["jsonl"]).documents()
    next(documents)
    with (folders["jsonl"] / "a.jsonl").open("a") as lines:
        lines.write(jsonl(["later"]))
    with pytest.raises(RequestFault, match=r"corpus c: a.jsonl changed"):
        list(documents)


def test_who_read_a_corpus_already_still_has_the_same(folders: dict[str, Path]) -> None:
    read, unread = (CorpusSource(name="c", path=folders["jsonl"]) for _ in range(2))
    read.content_digest()
    assert read.is_same_as(unread)
    assert not read.is_same_as(CorpusSource(name="c", path=folders["jsonl"], held_out_fraction=0.2))
