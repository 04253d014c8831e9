from __future__ import annotations

import json
import os
from pathlib import Path

from transformers import AutoTokenizer

from tests.models import byte_tokenizer
from worker.stages.portable_tokenizer import FILE_NAME, in_older_words, make_portable

TEXT = "<|turn|>Call me Ishmael.</s>"


def saved(folder: Path) -> Path:
    """As transformers 5 saves a tokenizer that has a token of its own."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.save_pretrained(folder)
    return folder


def test_newer_words_become_older_ones_with_the_same_tokens(tmp_path: Path) -> None:
    folder = saved(tmp_path / "tokenizer")
    before = AutoTokenizer.from_pretrained(folder)
    newer = json.loads((folder / FILE_NAME).read_bytes())
    assert (newer["tokenizer_class"], newer["extra_special_tokens"]) == ("TokenizersBackend", ["<|turn|>"])
    make_portable(folder)
    older = json.loads((folder / FILE_NAME).read_bytes())
    assert (older["tokenizer_class"], older["additional_special_tokens"]) == ("PreTrainedTokenizerFast", ["<|turn|>"])
    assert "extra_special_tokens" not in older
    after = AutoTokenizer.from_pretrained(folder)
    assert after(TEXT).input_ids == before(TEXT).input_ids
    assert sorted(after.all_special_tokens) == sorted(before.all_special_tokens)
    assert after.decode(after(TEXT).input_ids, skip_special_tokens=True) == "Call me Ishmael."


def test_the_base_model_s_own_file_is_not_written_through_its_other_name(tmp_path: Path) -> None:
    base, output = saved(tmp_path / "base"), tmp_path / "output"
    output.mkdir()
    for path in base.iterdir():
        os.link(path, output / path.name)
    before = (base / FILE_NAME).read_bytes()
    make_portable(output)
    assert (base / FILE_NAME).read_bytes() == before
    assert (output / FILE_NAME).read_bytes() != before


def test_older_words_are_left_byte_for_byte(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    text = '{"tokenizer_class":   "PreTrainedTokenizerFast", "extra_special_tokens": {"turn_token": "<|turn|>"}}'
    (folder / FILE_NAME).write_text(text)
    make_portable(folder)
    assert (folder / FILE_NAME).read_text() == text


def test_a_class_of_a_family_keeps_its_name() -> None:
    config = {"tokenizer_class": "Qwen2Tokenizer", "additional_special_tokens": ["a"], "extra_special_tokens": ["b"]}
    assert in_older_words(config) == config


def test_a_tokenizer_of_other_files_keeps_its_class(tmp_path: Path) -> None:
    """Without tokenizer.json the older class would find nothing to load."""
    (tmp_path / FILE_NAME).write_text('{"tokenizer_class": "TokenizersBackend"}')
    make_portable(tmp_path)
    assert json.loads((tmp_path / FILE_NAME).read_bytes()) == {"tokenizer_class": "TokenizersBackend"}
