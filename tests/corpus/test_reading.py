"""Texts as they come: what is harmless is read, what is not is refused by file, place and way out."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from publisher.corpus import reading as corpus_reading
from publisher.corpus.source import CorpusSource
from publisher.errors import RequestFault

MARK = b"\xef\xbb\xbf"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12\n"
TEXTS = [f"document number {number}" for number in range(40)]
LINES = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()


def documents(folder: Path, name: str, content: bytes, **more: object) -> list[str]:
    (folder / name).write_bytes(content)
    return list(CorpusSource.model_validate({"name": "c", "path": folder} | more).documents())


def refusal(folder: Path, name: str, content: bytes) -> str:
    """What is said, which names the file and is the request's fault."""
    with pytest.raises(RequestFault) as refused:
        documents(folder, name, content)
    assert name in refused.value.message
    assert refused.value.field in {"path", "text_field"}
    assert refused.value.way_out
    return str(refused.value)


def table(column: object, name: str = "text", **options: object) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({name: column, "id": range(len(column))}), buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def damaged(data: bytes, start: int, length: int = 30) -> bytes:
    return data[:start] + bytes(byte ^ 0xFF for byte in data[start : start + length]) + data[start + length :]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", MARK + LINES),
        ("a.jsonl.gz", gzip.compress(MARK + LINES)),
        ("a.jsonl", LINES[: LINES.index(b"\n") + 1] + MARK + LINES[LINES.index(b"\n") + 1 :]),  # files put together
        ("a.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("a.jsonl", LINES.replace(b"\n", b"\r")),
        ("a.jsonl", b"\n \n" + LINES.replace(b"\n", b"\n\r\n\t\n")),
        ("a.jsonl", LINES.rstrip()),
        ("a.jsonl.gz", gzip.compress(LINES[:270]) + gzip.compress(LINES[270:])),
        ("A.JSONL", LINES),
        ("a.jsonl", LINES.replace(b"}", b', "digits": ' + b"1" * 5000 + b"}")),
        ("a.jsonl", LINES + b'{"text": null}\n{"text": "  "}\n'),
        ("a.parquet", table(TEXTS)),
        ("a.parquet", table(pyarrow.array(TEXTS).cast(pyarrow.large_string()))),
        ("a.parquet", table(pyarrow.array(TEXTS).cast(pyarrow.string_view()))),
        ("a.parquet", table(pyarrow.array(TEXTS).dictionary_encode())),
        ("a.parquet", table([text.encode() for text in TEXTS])),
        ("a.parquet", table([None, *TEXTS, None, " "])),
    ],
)
def test_harmless_oddities_are_read(name: str, content: bytes, tmp_path: Path) -> None:
    assert documents(tmp_path, name, content) == TEXTS


def test_a_byte_order_mark_is_no_part_of_a_text_file(tmp_path: Path) -> None:
    assert documents(tmp_path, "a.txt", MARK + b"one\r\ntwo\r\n") == ["one\ntwo\n"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "\ufeff".encode("utf-16-le") + LINES.decode().encode("utf-16-le"), "is UTF-16, not UTF-8. .*iconv"),
        ("a.jsonl.gz", gzip.compress(LINES.decode().encode("utf-16")), "line 1 is UTF-16"),
        ("a.txt", "text".encode("utf-16"), "is UTF-16"),
        ("a.txt", "text".encode("utf-32"), "is UTF-32"),
        ("a.txt", "text".encode("utf-16-le"), "line 1 holds NUL bytes"),
        ("a.jsonl", LINES.decode().encode("utf-16-le"), "line 1 is not JSON: .*NUL bytes"),
        ("a.jsonl", LINES + b"\0" * 100, "line 41 is not JSON: .*NUL bytes"),
        ("a.jsonl", LINES + b'{"text": "caf\xe9"}\n', "line 41 is not UTF-8: byte 0xe9 at offset 13 of the line"),
        ("a.txt", b"one\ntwo\ncaf\xe9", "line 3 is not UTF-8: byte 0xe9 at offset 11 of the file"),
        ("a.jsonl", LINES + b'{"text": "\\ud83d"}', r"line 41 holds half of a surrogate pair, \\ud83d at character 0"),
        ("a.jsonl", LINES + b'{"text": "a\\uDE00"}', r"line 41 holds half of a surrogate pair, \\ude00 at character 1"),
        ("a.jsonl", LINES + b'{"text": "a", "x": ' + b"[" * 100_000, "line 41 is nested too deeply"),
        ("a.jsonl", json.dumps([{"text": "a"}]).encode(), "line 1 is not a JSON object. .*jq -c '.\\[\\]'"),
        ("a.jsonl", json.dumps([{"text": "a"}], indent=1).encode(), "line 1 is not JSON.*jq -c '.\\[\\]'"),
        ("a.jsonl", json.dumps({"text": "a"}, indent=1).encode(), "line 1 is not JSON.*jq -c \\. "),
        ("a.json", json.dumps([{"text": "a"}]).encode(), "holds no .*jq -c '.\\[\\]'"),
        ("a.jsonl", LINES + b'"text"\n', "line 41 is not a JSON object"),
        ("a.jsonl", LINES + b'{"text": 5}\n', "line 41 has no text in field 'text': it is a number"),
        ("a.jsonl", LINES + b'{"text": ["a"]}\n', "it is a list"),
        ("a.jsonl", LINES + b'{"text": {"a": 1}}\n', "it is an object"),
        ("a.jsonl", LINES + b'{"text": true}\n', "it is a boolean"),
        ("a.jsonl", b'{"content": "a", "id": 1}\n', r"its fields are content, id\. .*text_field"),
        ("a.jsonl", gzip.compress(LINES), "is packed with gzip.*Rename it to .jsonl.gz"),
        ("a.jsonl", table(TEXTS), "is Parquet.*Rename"),
        ("a.jsonl", b"<!DOCTYPE html><html>", "is a web page"),
        ("a.jsonl.gz", LINES, "is not gzip"),
        ("a.jsonl.gz", b"", "is empty"),
        ("a.jsonl.gz", damaged(gzip.compress(LINES * 50, mtime=0), 20), "is damaged in or after line"),
        ("a.jsonl.gz", gzip.compress(LINES * 50, mtime=0)[:-300], "is damaged in or after line"),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0) + b"garbage", "is damaged in or after line"),
        ("a.jsonl", LFS, "Git LFS pointer.*git lfs pull"),
        ("a.jsonl.gz", LFS, "Git LFS pointer"),
        ("a.parquet", LFS, "Git LFS pointer"),
        ("a.txt", LFS, "Git LFS pointer"),
        ("a.txt", b"/annex/objects/SHA256E-s5--0.txt\n", "git-annex pointer"),
        ("a.parquet", b"", "is empty"),
        ("a.parquet", table(TEXTS)[:400], "is damaged or not Parquet"),
        ("a.parquet", damaged(table(TEXTS * 20), 60), "is damaged"),
        ("a.parquet", damaged(table(TEXTS * 20, compression="none"), 24), "is damaged"),
        ("a.parquet", table([b"fine", b"a\xffb"]), "row 2 is not UTF-8: byte 0xff at offset 1"),
        ("a.parquet", table(list(range(5))), "it is a column of int64; all columns are text, id"),
        ("a.parquet", table([["a"], ["b"]]), "it is a column of list"),
        ("a.parquet", table(TEXTS, "body"), "no column 'text'. Columns: body, id. .*text_field"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestFault, match=f"(?s){message}"):
        documents(tmp_path, name, content)
    refusal(tmp_path, name, content)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = pyarrow.table([pyarrow.array(TEXTS), pyarrow.array(TEXTS)], names=["text", "text"])
    parquet.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(RequestFault, match="several columns 'text'"):
        list(CorpusSource(name="c", path=tmp_path).documents())


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", LINES), ("a.jsonl.gz", gzip.compress(LINES)), ("a.txt", LINES), ("a.parquet", table(["x" * 25]))],
)
def test_a_document_is_bounded(name: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_reading, "MOST_BYTES", 20)
    assert "too long for one document" in refusal(tmp_path, name, content)


def test_whole_characters_in_two_escapes_are_read(tmp_path: Path) -> None:
    assert documents(tmp_path, "a.jsonl", b'{"text": "\\ud83d\\ude00"}\n{"text": "\\uD83D\\uDE00"}\n') == ["😀", "😀"]


def test_a_column_is_not_mistaken_for_a_field_of_another(tmp_path: Path) -> None:
    columns = {"meta": [{"text": "wrong"}] * len(TEXTS), "meta.text": TEXTS}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    assert list(CorpusSource(name="c", path=tmp_path, text_field="meta.text").documents()) == TEXTS


def test_another_field_may_hold_the_text(tmp_path: Path) -> None:
    assert documents(tmp_path, "a.jsonl", b'{"content": "a", "text": 5}\n', text_field="content") == ["a"]
