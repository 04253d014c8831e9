"""Tokenizers beside embeddings, as transformers saves them."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from publisher.base_model.files import FolderFiles
from publisher.base_model.tokens import Vocabulary, read_vocabulary
from publisher.errors import UnsupportedModel
from tests.models import byte_tokenizer

SIZE = 259  # tokens of byte_tokenizer


def saved(folder: Path, *added: str, **roles: str) -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(list(added))
    for role, token in roles.items():
        setattr(tokenizer, role, token)
    tokenizer.save_pretrained(folder)
    return tokenizer


def read(folder: Path) -> Vocabulary:
    files = FolderFiles(folder)
    return read_vocabulary(files, files.sizes())


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | values))


def test_an_id_of_thousands_of_digits_is_none(tmp_path: Path) -> None:
    saved(tmp_path)
    change(
        tmp_path / "tokenizer_config.json",
        added_tokens_decoder={"9" * 5000: {"content": "<a>"}, "258": {"content": "b"}},
    )
    assert read(tmp_path).added["b"] == 258
    assert "<a>" not in read(tmp_path).added


def test_every_token_and_role_is_found_as_transformers_has_them(tmp_path: Path) -> None:
    tokenizer = saved(tmp_path, "<|im_start|>")
    found = read(tmp_path)
    assert {**found.words, **found.added} == tokenizer.get_vocab()
    assert found.roles == {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    assert found.token_of(SIZE) == "<|im_start|>"


@pytest.mark.parametrize("embeddings", [SIZE, SIZE + 61])
def test_as_many_embeddings_as_tokens_or_more_are_fine(tmp_path: Path, embeddings: int) -> None:
    saved(tmp_path)
    assert read(tmp_path).refuse_beyond(embeddings, "model") == []


@pytest.mark.parametrize("role", ["eos_token", "pad_token", "unk_token"])
def test_a_token_with_a_role_is_refused_by_name(tmp_path: Path, role: str) -> None:
    saved(tmp_path, "<|im_end|>", **{role: "<|im_end|>"})
    with pytest.raises(UnsupportedModel, match=rf"'<\|im_end\|>' of model, the tokenizer's {role}, has id {SIZE}, and"):
        read(tmp_path).refuse_beyond(SIZE, "model")


def test_a_role_whose_token_no_file_numbers_gets_the_next_id(tmp_path: Path) -> None:
    saved(tmp_path)
    change(tmp_path / "tokenizer_config.json", pad_token="[PAD]")
    assert read(tmp_path).refuse_beyond(SIZE + 1, "model") == []
    with pytest.raises(UnsupportedModel, match=r"'\[PAD\]'.* resize_token_embeddings|'\[PAD\]'"):
        read(tmp_path).refuse_beyond(SIZE, "model")


def test_words_beyond_the_embeddings_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(UnsupportedModel, match="a word of the tokenizer, has id 200, and the model has 200 embeddings"):
        Vocabulary(words=dict(read(tmp_path).words)).refuse_beyond(200, "model")


@pytest.mark.parametrize("place", ["chat_template.jinja", "additional_chat_templates/tools.jinja", "config"])
def test_an_added_token_in_a_chat_template_is_refused(tmp_path: Path, place: str) -> None:
    saved(tmp_path, "<|im_start|>")
    template = "{{ '<|im_start|>' + messages[0]['role'] }}"
    if place == "config":
        change(tmp_path / "tokenizer_config.json", chat_template=[{"name": "default", "template": template}])
    else:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(template)
    with pytest.raises(UnsupportedModel, match="in the chat template"):
        read(tmp_path).refuse_beyond(SIZE, "model")


def test_an_added_token_that_nothing_names_is_told(tmp_path: Path) -> None:
    """Gemma 3 has such a one: 262,144 embeddings, and <image_soft_token> has the id 262,144."""
    saved(tmp_path, "<image_soft_token>")
    told = read(tmp_path).refuse_beyond(SIZE, "model")
    assert told == [f"text with <image_soft_token> ({SIZE}) is refused: the model has {SIZE} embeddings"]


def test_a_vocabulary_without_tokenizer_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 7}')
    with pytest.raises(UnsupportedModel, match="'b' of model, a word of the tokenizer, has id 7"):
        read(tmp_path).refuse_beyond(7, "model")


def test_files_of_odd_content_are_read_without_an_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": [], "added_tokens": {"a": 1}}')
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": 7, "added_tokens_decoder": [], "chat_template": {}}')
    (tmp_path / "added_tokens.json").write_text('{"a": "b", "c": 5}')
    assert read(tmp_path) == Vocabulary(added={"c": 5})
