"""Folders as their owners have them, and what the stages after fetch read of them: transformers is the oracle."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from publisher.errors import RequestFault, UnsupportedModel
from publisher.recipe.stages import Stage
from tests.models import byte_tokenizer, tiny_llama
from tests.worker.stages.building import prose, recipe, request_for
from worker.context import RecordingContext
from worker.stages.base_folder import refuse_unknown_tokens
from worker.stages.pipeline import run_pipeline
from worker.storage.folder import hash_file
from worker.storage.store import StageStore

MAGNITUDE: dict[str, Any] = {"criterion": "magnitude", "calibration": None}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "base")


def run(base: Path, last: Stage, context: RecordingContext | None = None, **pruning: Any) -> Path:
    """The folder of the last stage."""
    request = request_for(base, prose(base.parent / "prose.jsonl"), recipe(**pruning))
    store = StageStore(base.parent / "stages")
    return run_pipeline(request, store, lambda stage: context or RecordingContext(), last)[last]


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_files_that_transformers_stumbles_over_are_written_anew_and_the_owners_stay(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base", max_shard_size="20KB")
    plain = AutoModelForCausalLM.from_pretrained(base)
    change(base / "config.json", attn_implementation="flash_attention_2")
    change(base / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})
    (base / "evil.py").write_text("raise SystemExit")
    (base / "adapter_config.json").write_text("{}")
    index = json.loads((base / "model.safetensors.index.json").read_text())
    del index["metadata"]
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        (base / name).write_bytes(b"\xef\xbb\xbf" + (base / name).read_bytes())
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    context = RecordingContext()
    fetched = run(base, Stage.FETCH, context)
    model = AutoModelForCausalLM.from_pretrained(fetched / "base")
    assert AutoTokenizer.from_pretrained(fetched / "base")("a").input_ids == byte_tokenizer()("a").input_ids
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in plain.state_dict().items())
    assert before == {path.name: path.read_bytes() for path in base.iterdir()}
    record = json.loads((fetched / "base.json").read_text())
    assert record["files"]["config.json"]["sha256"] == hash_file(base / "config.json", lambda _: None)
    assert set(record["rewritten"]) == {
        "config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert not {"evil.py", "adapter_config.json"} & {path.name for path in (fetched / "base").iterdir()}
    assert any("flash_attention_2" in message for message in context.messages)


def test_a_clean_folder_is_linked_and_nothing_is_said(base: Path) -> None:
    context = RecordingContext()
    fetched = run(base, Stage.FETCH, context)
    assert all(path.is_symlink() for path in (fetched / "base").iterdir())
    assert "rewritten" not in json.loads((fetched / "base.json").read_text())
    assert context.messages == []


def test_documents_and_templates_come_along_and_make_no_other_model(base: Path) -> None:
    record = (run(base, Stage.FETCH) / "base.json").read_bytes()
    (base / "additional_chat_templates").mkdir()
    (base / "README.md").write_text("---\nlicense: mit\n---")
    (base / "LICENSE").write_text("MIT")
    assert (run(base, Stage.FETCH) / "base.json").read_bytes() == record
    (base / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    fetched = run(base, Stage.FETCH) / "base"
    assert (fetched / "additional_chat_templates" / "tools.jinja").read_text() == "{{ messages }}"
    assert (fetched / "LICENSE").read_text() == "MIT"


def test_the_head_that_transformers_loads_is_the_one_that_is_pruned(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base", tie_word_embeddings=True)
    head = torch.randn(320, 32)
    save_file(load_file(base / "model.safetensors") | {"lm_head.weight": head}, base / "model.safetensors")
    pruned = run(base, Stage.PRUNE) / "model"
    assert json.loads((pruned / "config.json").read_text())["tie_word_embeddings"] is False
    assert torch.equal(load_file(pruned / "model.safetensors")["lm_head.weight"], head)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(base).lm_head.weight, head)


@pytest.mark.parametrize("pruning", [{}, MAGNITUDE])
def test_a_base_model_saved_for_other_kernels_is_pruned_into_one_for_any(base: Path, pruning: dict[str, Any]) -> None:
    change(base / "config.json", attn_implementation="flash_attention_2", _attn_implementation="flash_attention_3")
    config = json.loads((run(base, Stage.PRUNE, **pruning) / "model" / "config.json").read_text())
    assert not [key for key in config if "attn_implementation" in key]


def test_text_with_a_token_beyond_the_embeddings_is_refused_by_its_name(base: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"<{index}>" for index in range(61)] + ["ishmael".title()])
    tokenizer.save_pretrained(base)
    context = RecordingContext()
    run(base, Stage.PRUNE, context, **MAGNITUDE)
    assert any("text with Ishmael (320) is refused" in message for message in context.messages)
    with pytest.raises(RequestFault, match=r"the text holds token 'Ishmael', whose id is 320, and the model has 320"):
        run(base, Stage.PRUNE)


def test_tokens_with_embeddings_are_let_through(base: Path) -> None:
    refuse_unknown_tokens(base, torch.tensor([[0, 319]]), torch.empty(0, 4, dtype=torch.int32))


def test_a_tokenizer_that_cannot_be_loaded_is_in_the_way_of_text_only(base: Path) -> None:
    (base / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    context = RecordingContext()
    run(base, Stage.PRUNE, context, **MAGNITUDE)
    assert any("tokenizer cannot be loaded" in message for message in context.messages)
    shutil.rmtree(base.parent / "stages")
    with pytest.raises(RequestFault, match="tokenizer cannot be loaded"):
        run(base, Stage.FETCH)


def test_a_vocabulary_in_another_format_is_looked_through_when_it_is_fetched(base: Path) -> None:
    """vocab.txt: no JSON file says that there are 400 words."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).unlink(missing_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{index}" for index in range(395))]
    (base / "vocab.txt").write_text("\n".join(words))
    (base / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    with pytest.raises(UnsupportedModel, match="a word of the tokenizer, has id"):
        run(base, Stage.FETCH)
