"""Files that other tools wrote, in the states in which they arrive."""

import json
from pathlib import Path

import pytest

from publisher.errors import RequestFault
from publisher.files.json_object import MAX_BYTES, parse_object, read_object, refuse_nan

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4952\n"


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_makes_no_difference(start: bytes) -> None:
    assert parse_object(start + '{"name": "Modèle"}'.encode(), "config.json") == {"name": "Modèle"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": 1}'.encode("utf-16"), "config.json is UTF-16, not UTF-8."),
        ('{"a": "Modèle"}'.encode("latin-1"), "config.json, line 1 is not UTF-8: byte 0xe8 at offset 10"),
        (b'{"a": [' * 200_000, "nested too deep"),
        (b'{"a": ' * 100 + b"1" + b"}" * 100, "nested too deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (b'{"a": {"b": ["x", "\\ud83d"]}}', "half of a surrogate pair in a.b.1"),
        (b'{"a": {"\\uDE00": 1}}', r"half of a surrogate pair in a.\ude00"),
        (b"", "is not JSON"),
        (b"{" + b" " * MAX_BYTES + b"}", "are read"),
        (POINTER, "is a Git LFS pointer, not the file itself. Fetch the file with `git lfs pull`"),
    ],
)
def test_what_is_no_object_is_refused_by_the_files_name(content: bytes, said: str) -> None:
    with pytest.raises(RequestFault, match=r"^config\.json") as caught:
        parse_object(content, "config.json")
    assert said in str(caught.value)


def test_a_whole_character_in_two_escapes_is_read() -> None:
    assert parse_object(rb'{"a": "\ud83d\uDE00", "b": "\\ud83d"}', "config.json") == {"a": "\U0001f600", "b": r"\ud83d"}


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestFault, match=r"none\.json does not exist"):
        read_object(tmp_path / "none.json")


def test_nan_is_refused_by_its_key_and_infinity_is_not() -> None:
    config = json.loads('{"a": Infinity, "rope": {"factors": [1.0, NaN]}}')
    with pytest.raises(RequestFault, match=r"config\.json has rope\.factors\.1 = NaN"):
        refuse_nan(config, "config.json")
    refuse_nan(json.loads('{"a": [Infinity, 1]}'), "config.json")
