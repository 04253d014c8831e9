from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from publisher.client.train.examples import Kind, read_examples
from publisher.errors import RequestFault
from tests.client.train.tiny import CHATS, PAIRS, TEXTS, jsonl

USER = {"role": "user", "content": "?"}


@pytest.mark.parametrize(
    ("rows", "kind", "conversational"),
    [
        (TEXTS, Kind.TEXT, False),
        (PAIRS, Kind.COMPLETION, False),
        ([{"prompt": [USER], "completion": [USER]}], Kind.COMPLETION, True),
        (CHATS, Kind.MESSAGES, True),
    ],
)
def test_each_kind_is_known_by_its_fields(rows: list[dict], kind: Kind, conversational: bool, tmp_path: Path) -> None:
    found = read_examples(jsonl(tmp_path / "a.jsonl", rows))
    assert (found.kind, found.rows, found.conversational) == (kind, rows, conversational)


def test_packed_files_blank_lines_and_other_fields(tmp_path: Path) -> None:
    lines = ["", json.dumps({"text": "one", "id": 1}), json.dumps({"text": " "}), "", json.dumps({"text": "two"})]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    found = read_examples(tmp_path / "a.jsonl.gz")
    assert found.rows == [{"text": "one"}, {"text": "two"}]
    assert found.places == ["a.jsonl.gz, line 2", "a.jsonl.gz, line 5"]
    assert found.left_out == ("id",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no example"),
        ('{"text": "a"}\n{"text": ', "a.jsonl, line 2 is not JSON"),
        ('{"text": "a"}\n[1]', "a.jsonl, line 2 is not a JSON object"),
        ('{"question": "a", "id": 1}', "line 1 has nothing to train on: its fields are question, id."),
        ('{"text": "a"}\n{"prompt": "a"}', "line 2 has no 'text', as the first line has"),
        ('{"text": 3}', "line 1: 'text' is no text."),
        ('{"text": [{"role": "user", "content": "?"}]}', "line 1: 'text' is no text."),
        ('{"messages": "a"}', "line 1: 'messages' is no text or messages."),
        ('{"messages": []}', "line 1: 'messages' is empty"),
        ('{"messages": [{"role": "user", "content": "?"}, {"role": "user"}]}', "message 2 of 'messages' has no text"),
        ('{"prompt": "a", "completion": ""}', "line 1: 'completion' is empty"),
        ('{"prompt": "a", "completion": [{"role": "user", "content": "?"}]}', "texts where others have messages"),
        (
            '{"prompt": "a", "completion": "b"}\n'
            '{"prompt": [{"role": "u", "content": ""}], "completion": [{"role": "u", "content": ""}]}',
            "line 2 has texts where others have messages",
        ),
        ('{"text": "a\\ud800"}', "line 1 holds half of a surrogate pair"),
    ],
)
def test_what_cannot_be_trained_on_is_named_by_its_line(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(RequestFault) as refused:
        read_examples(tmp_path / "a.jsonl")
    assert said in str(refused.value)
    assert refused.value.way_out


@pytest.mark.parametrize(("name", "said"), [("gone.jsonl", "does not exist"), ("a.txt", "is no JSON Lines file")])
def test_files_that_are_none(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(RequestFault, match=said):
        read_examples(tmp_path / name)
