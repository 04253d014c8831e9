"""A base model that is named by hand is the checkpoint's, or is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig

from publisher.checkpoint.recovery import RecoveryReport, base_identity, recover_adapter
from publisher.errors import RequestFault
from publisher.manifest.manifest import Manifest, record
from tests.checkpoint.pruned import SIZES, lora, make_pair, save_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    lora(make_pair().pruned).save_pretrained(tmp_path / "adapter")
    return save_checkpoint(tmp_path / "checkpoint", make_pair().pruned)


def recovered(checkpoint: Path, base: str | Path, *, force: bool = False) -> RecoveryReport:
    folder = checkpoint.parent
    return recover_adapter(folder / "adapter", checkpoint, folder / "out", base_model=str(base), force=force)


def test_base_of_another_family_is_refused_and_forced(checkpoint: Path, tmp_path: Path) -> None:
    MistralConfig(**SIZES).save_pretrained(tmp_path / "base")
    with pytest.raises(
        RequestFault, match=r"not the base model of this checkpoint, org/base: it has model_type mistral"
    ):
        recovered(checkpoint, tmp_path / "base")
    assert not (tmp_path / "out").exists()
    notes = recovered(checkpoint, tmp_path / "base", force=True).notes
    assert [note for note in notes if note.startswith("Forced: ")]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"hidden_size": 48}, "hidden_size 48, the checkpoint 24"),
        ({"num_hidden_layers": 5}, "num_hidden_layers 5"),
        ({"intermediate_size": 24}, "its layer 0 has 3 KV heads, 24 neurons"),
        ({"num_key_value_heads": 6}, "its layer 0 has 6 KV heads"),
        ({"head_dim": 16}, "tensors of other names or shapes"),
        ({"attention_bias": True}, "tensors of other names or shapes"),
    ],
)
def test_base_of_another_size_is_refused(
    checkpoint: Path, tmp_path: Path, changed: dict[str, object], named: str
) -> None:
    LlamaConfig(**(SIZES | changed)).save_pretrained(tmp_path / "base")
    with pytest.raises(RequestFault, match=named):
        recovered(checkpoint, tmp_path / "base")


def test_without_transformers_the_files_of_the_base_are_compared(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_identity, "_can_describe", lambda: False)
    LlamaConfig(**SIZES).save_pretrained(tmp_path / "base")
    pinned(checkpoint, tmp_path / "base")
    LlamaConfig(**(SIZES | {"intermediate_size": 24})).save_pretrained(tmp_path / "base")
    assert "(without transformers)" in " ".join(recovered(checkpoint, tmp_path / "base").notes)
    shutil.rmtree(tmp_path / "out")
    LlamaForCausalLM(LlamaConfig(**(SIZES | {"intermediate_size": 24}))).save_pretrained(tmp_path / "base")
    with pytest.raises(RequestFault, match=r"model\.layers\.0\.mlp\.\w+_proj\.weight has shape .* by the masks"):
        recovered(checkpoint, tmp_path / "base")


def test_base_with_the_config_that_the_manifest_names_needs_no_word(checkpoint: Path, tmp_path: Path) -> None:
    LlamaConfig(**SIZES).save_pretrained(tmp_path / "base")
    pinned(checkpoint, tmp_path / "base")
    assert recovered(checkpoint, tmp_path / "base").notes == ()


def test_copy_in_4_bits_is_taken_and_said(checkpoint: Path, tmp_path: Path) -> None:
    LlamaConfig(**SIZES).save_pretrained(tmp_path / "base")
    pinned(checkpoint, tmp_path / "base")
    path = tmp_path / "base" / "config.json"
    quantized = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    path.write_text(json.dumps(json.loads(path.read_text()) | quantized))
    notes = recovered(checkpoint, tmp_path / "base").notes
    assert [note for note in notes if "family and sizes of the base model" in note]


def test_repository_that_cannot_be_read_is_taken_unchecked_and_said(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    report = recovered(checkpoint, "org/another")
    assert report.base_model == "org/another"
    assert [note for note in report.notes if note.startswith("org/another could not be read")]


def pinned(checkpoint: Path, base: Path, *names: str) -> None:
    manifest = Manifest.read(checkpoint)
    files = {name: record(base / name) for name in names or ("config.json",)}
    manifest.model_copy(update={"base": manifest.base.model_copy(update={"files": files})}).write(checkpoint)


@pytest.mark.parametrize("named", ["empty", "nowhere", "no/such/folder", ""])
def test_base_that_is_no_model_and_no_name_of_one_is_refused(checkpoint: Path, tmp_path: Path, named: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestFault, match=r"is no model|neither a folder nor a repository's name"):
        recovered(checkpoint, tmp_path / named if named in ("empty", "nowhere") else named)
    assert not (tmp_path / "out").exists()


def test_checkpoint_is_not_taken_for_its_own_base(checkpoint: Path) -> None:
    with pytest.raises(RequestFault, match="is the checkpoint, not the base model"):
        recovered(checkpoint, checkpoint)


def test_other_weights_with_the_config_of_the_base_are_said(checkpoint: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    make_pair().base.save_pretrained(base)
    pinned(checkpoint, base, "config.json", "model.safetensors")
    assert recovered(checkpoint, base).notes == ()
    shutil.rmtree(tmp_path / "out")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    assert [note for note in recovered(checkpoint, base).notes if "but another model.safetensors" in note]


def test_config_that_nests_without_end_is_one_sentence(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"a":' * 100_000)
    with pytest.raises(RequestFault, match="nested too deep"):
        recovered(checkpoint, tmp_path / "base")
