"""What is trained on: a JSON Lines file, read and checked whole before a model is loaded.

Each line is an object of one of three kinds, the same in all lines, named as TRL names them; other fields are left out:

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
    {"prompt": "…", "completion": "…"}          either both texts, or both lists of messages
    {"text": "…"}
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from publisher.corpus.files import text_files
from publisher.corpus.reading import read_records
from publisher.errors import RequestFault, listed

Row = dict[str, Any]
_SHOWN_FIELDS = 20
_WAY_OUT = (
    'Each line has "messages" (objects with "role" and "content"), "prompt" and "completion", or "text", and all lines '
    "the same."
)


class Kind(StrEnum):
    """`fields` of each line."""

    fields: tuple[str, ...]

    def __new__(cls, value: str, *fields: str) -> Kind:
        member = str.__new__(cls, value)
        member._value_ = value
        member.fields = fields
        return member

    MESSAGES = "messages", "messages"
    COMPLETION = "prompt and completion", "prompt", "completion"
    TEXT = "text", "text"


@dataclass(frozen=True)
class Examples:
    """`rows` have the fields of `kind` alone; `places`: where each stands; `left_out`: other fields that were there;
    `sha256`: of the file, in hex."""

    kind: Kind
    rows: list[Row]
    places: list[str]
    left_out: tuple[str, ...]
    sha256: str

    @property
    def conversational(self) -> bool:
        """Whether the tokenizer's chat template makes text of them."""
        return not isinstance(self.rows[0][self.kind.fields[0]], str)


def read_examples(path: Path) -> Examples:
    """RequestFault naming file and line for whatever is none of the kinds; blank texts are passed over."""
    file, *more = text_files(path)
    if more or not file.ending.startswith(".jsonl"):
        raise RequestFault(f"{path} is no JSON Lines file.", way_out=f"Name one .jsonl or .jsonl.gz file. {_WAY_OUT}")
    rows: list[Row] = []
    places: list[str] = []
    others: set[str] = set()
    kind: Kind | None = None
    for place, record in read_records(file):
        kind = kind or _kind_of(place, record)
        row = {name: _wanted(place, record, name) for name in kind.fields}
        _refuse_unlike(place, row, rows[0] if rows else row)
        others |= record.keys() - row.keys()
        if kind is not Kind.TEXT or row["text"].strip():
            rows.append(row)
            places.append(place)
    if kind is None or not rows:
        raise RequestFault(f"{path} holds no example.", way_out=_WAY_OUT)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Examples(kind, rows, places, tuple(sorted(others)), digest)


def _kind_of(place: str, record: Mapping[str, Any]) -> Kind:
    for kind in Kind:
        if all(name in record for name in kind.fields):
            return kind
    shown = ", ".join(list(record)[:_SHOWN_FIELDS]) or "none"
    raise RequestFault(f"{place} has nothing to train on: its fields are {shown}.", way_out=_WAY_OUT)


def _wanted(place: str, record: Mapping[str, Any], name: str) -> Any:
    if name not in record:
        raise RequestFault(f"{place} has no {name!r}, as the first line has.", way_out=_WAY_OUT)
    value = record[name]
    if isinstance(value, list) and name != "text":
        _refuse_no_messages(place, name, value)
    elif not isinstance(value, str) or name == "messages":
        raise RequestFault(f"{place}: {name!r} is no text{' or messages' if name != 'text' else ''}.", way_out=_WAY_OUT)
    elif name == "completion" and not value:
        raise RequestFault(f"{place}: {name!r} is empty, so there is nothing to learn.", way_out="Remove the line.")
    return value


def _refuse_no_messages(place: str, name: str, messages: list[Any]) -> None:
    if not messages:
        raise RequestFault(f"{place}: {name!r} is empty.", way_out="Remove the line.")
    for number, message in enumerate(messages, 1):
        fields = message if isinstance(message, dict) else {}
        wrong = [each for each in ("role", "content") if not isinstance(fields.get(each), str)]
        if wrong:
            raise RequestFault(
                f"{place}: message {number} of {name!r} has no text in {listed(wrong)}.", way_out=_WAY_OUT
            )


def _refuse_unlike(place: str, row: Row, first: Row) -> None:
    """Prompts and completions: all texts or all messages, in every line."""
    if {type(value) for value in row.values()} != {type(next(iter(first.values())))}:
        raise RequestFault(
            f"{place} has texts where others have messages.", way_out="Write all prompts and completions in one way."
        )
