"""A sample of a corpus is its beginning, and never takes reading much."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from publisher.corpus import sample as sampling
from publisher.corpus.files import text_files
from publisher.corpus.sample import CHARACTERS, DOCUMENTS, MOST_BYTES, Excerpt, sample
from publisher.errors import RequestFault

TEXTS = [f"Document {number}. " + "word " * 200 for number in range(20)]


def written(path: Path, texts: list[str]) -> Path:
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()
    match "".join(path.suffixes):
        case ".parquet":
            parquet.write_table(pa.table({"id": range(len(texts)), "text": texts}), path)
        case ".jsonl.gz":
            path.write_bytes(gzip.compress(lines))
        case ".jsonl":
            path.write_bytes(lines)
        case _:
            path.write_text("\n".join(texts))
    return path


def excerpts(path: Path) -> list[Excerpt]:
    return sample(text_files(path)[0], "text")


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".parquet"])
def test_first_documents_are_shown_cut(tmp_path: Path, ending: str) -> None:
    found = excerpts(written(tmp_path / f"corpus{ending}", ["  ", "short", *TEXTS]))
    assert found[0] == Excerpt("short", is_cut=False)
    assert found[1:] == [Excerpt(text[:CHARACTERS], is_cut=True) for text in TEXTS[: DOCUMENTS - 1]]


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".txt"])
def test_large_file_is_read_at_its_beginning_alone(tmp_path: Path, ending: str) -> None:
    texts = [f"{number} " + "é" * 60_000 for number in range(40)]
    path = written(tmp_path / f"corpus{ending}", texts)
    if ending != ".jsonl.gz":
        assert path.stat().st_size > 2 * MOST_BYTES
        with path.open("ab") as file:  # what comes later is not looked at
            file.write(b"\xff\xff not UTF-8")
    found = excerpts(path)
    assert found[0] == Excerpt(texts[0][:CHARACTERS], is_cut=True)
    assert len(found) == (1 if ending == ".txt" else DOCUMENTS)


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_document_that_is_longer_than_is_read_is_told(tmp_path: Path, ending: str) -> None:
    with pytest.raises(RequestFault, match="is longer than 1 MiB"):
        excerpts(written(tmp_path / f"corpus{ending}", ["x" * MOST_BYTES]))


def test_large_group_of_rows_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "corpus.parquet", TEXTS)
    monkeypatch.setattr(sampling, "MOST_COLUMN_BYTES", 1000)
    with pytest.raises(RequestFault, match="one piece of more than"):
        excerpts(path)


@pytest.mark.parametrize(("name", "content"), [("a.parquet", b"PAR1"), ("a.jsonl.gz", b"\x1f\x8b\x08\x00broken")])
def test_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestFault, match=name):
        excerpts(tmp_path / name)
