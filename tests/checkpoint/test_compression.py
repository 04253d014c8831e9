"""Compressed checkpoints: what loads is what was pruned, and nothing loads that cannot be expanded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    MixtralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
)

from publisher.checkpoint.compression import compress, compress_folder, expand, is_compressed
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.errors import RequestFault
from publisher.loading.notice import FILE_KEY, NOTICE
from publisher.weights.folder import StoredWeights
from tests.checkpoint.sparse import random_model, write_masks, zero_pruned

TOKENS = torch.arange(24).reshape(2, 12) % 64
SIZES = {
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 35,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": (LlamaConfig(**SIZES, tie_word_embeddings=True), "proj"),
    "qwen2": (Qwen2Config(**SIZES), "proj"),
    "phi3": (Phi3Config(**SIZES), "proj"),
    "mixtral": (MixtralConfig(**SIZES, num_local_experts=3), ""),
}


def checkpoint(
    folder: Path, family: str = "llama", dtype: torch.dtype = torch.bfloat16, shards: str = "5GB"
) -> tuple[Path, Path, WeightMasks]:
    """The pruned model dense, the same compressed, and its masks."""
    config, part = FAMILIES[family]
    random_model(config, dtype).save_pretrained(folder / "dense", max_shard_size=shards)
    masks = write_masks(folder / "dense", folder / "masks.safetensors", part)
    zero_pruned(folder / "dense", masks)
    (folder / "compressed").mkdir()
    compress_folder(folder / "dense", masks, folder / "compressed")
    return folder / "dense", folder / "compressed", masks


def states_equal(one: Any, other: Any) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 9), columns=st.integers(1, 20), seed=st.integers(0, 99))
def test_expanded_weights_are_the_masked_ones(rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, columns, generator=generator) < 0.5
    weight = torch.randn(rows, columns, generator=generator)
    assert torch.equal(expand(compress(weight, mask), mask), weight * mask)


def test_kept_weights_that_do_not_fit_their_mask_are_refused() -> None:
    with pytest.raises(ValueError, match="3 kept weights for a mask that keeps 4"):
        expand(torch.ones(3), torch.ones(2, 2, dtype=torch.bool))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shards", ["5GB", "6KB"])
def test_compressed_checkpoint_loads_equal_to_the_dense_one(tmp_path: Path, family: str, shards: str) -> None:
    dense, compressed, _ = checkpoint(tmp_path, family, shards=shards)
    settings = {"dtype": "auto", "experts_implementation": "eager"}
    loaded, info = AutoModelForCausalLM.from_pretrained(compressed, **settings, output_loading_info=True)
    expected = AutoModelForCausalLM.from_pretrained(dense, **settings)
    assert loaded.dtype == torch.bfloat16
    assert states_equal(loaded, expected)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(loaded(TOKENS).logits, expected(TOKENS).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_are_cast_to_the_dtype_that_is_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    dense, compressed, _ = checkpoint(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(compressed, dtype=dtype, device_map={"": "cpu"})
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert states_equal(loaded, AutoModelForCausalLM.from_pretrained(dense, dtype=dtype))


@pytest.mark.parametrize("family", FAMILIES)
def test_loaded_model_is_saved_plain_and_dense(tmp_path: Path, family: str) -> None:
    dense, compressed, _ = checkpoint(tmp_path, family)
    loaded = AutoModelForCausalLM.from_pretrained(compressed, dtype="auto")
    assert getattr(loaded, "hf_quantizer", None) is None
    loaded.save_pretrained(tmp_path / "saved")
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    saved, expected = StoredWeights(tmp_path / "saved"), StoredWeights(dense)
    assert saved.entries == expected.entries
    assert all(torch.equal(saved.read(name), expected.read(name)) for name in saved.entries)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype="auto")
    assert states_equal(again, loaded)


def test_masks_are_shipped_once_and_half_the_weights_take_little_more_than_half_the_bytes(tmp_path: Path) -> None:
    dense, compressed, masks = checkpoint(tmp_path)
    stored = StoredWeights(compressed)
    masked = sum(StoredWeights(dense).entries[name].size for name in masks.weights)
    kept = sum(stored.entries[name].size for name in masks.weights)
    packed = sum(entry.size for name, entry in stored.entries.items() if name.endswith(".kept_weights"))
    assert 0.46 < kept / masked < 0.54
    assert packed == sum(masks.packed(name).numel() for name in masks.weights)
    assert (compressed / "pruning_masks.safetensors").read_bytes() == masks.path.read_bytes()
    assert is_compressed(compressed)
    assert not is_compressed(dense)


def test_weights_that_are_not_zero_where_pruned_are_refused(tmp_path: Path) -> None:
    dense, _, masks = checkpoint(tmp_path)
    random_model(FAMILIES["llama"][0], torch.bfloat16).save_pretrained(dense)
    (tmp_path / "other").mkdir()
    with pytest.raises(RequestFault, match="is not zero everywhere it was pruned"):
        compress_folder(dense, masks, tmp_path / "other")


def test_masks_of_another_model_are_refused(tmp_path: Path) -> None:
    _, _, masks = checkpoint(tmp_path / "one")
    checkpoint(tmp_path / "two", "phi3")
    with pytest.raises(RequestFault, match=r"has no model\.layers\.1\.mlp\.gate_proj\.weight"):
        compress_folder(tmp_path / "two" / "dense", masks, tmp_path)


def test_checkpoint_without_its_masks_does_not_load(tmp_path: Path) -> None:
    _, compressed, _ = checkpoint(tmp_path)
    index = compressed / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = {n: f for n, f in content["weight_map"].items() if not n.endswith("kept_weights")}
    index.write_text(json.dumps(content))
    with pytest.raises(RuntimeError):
        AutoModelForCausalLM.from_pretrained(compressed)


def test_quantizing_while_expanding_is_refused_and_works_in_two_steps(tmp_path: Path) -> None:
    _, compressed, _ = checkpoint(tmp_path)
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    with pytest.raises(ValueError, match="BitsAndBytesConfig"):
        AutoModelForCausalLM.from_pretrained(compressed, quantization_config=nf4)
    AutoModelForCausalLM.from_pretrained(compressed).save_pretrained(tmp_path / "saved")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "saved", quantization_config=nf4).is_loaded_in_4bit


def test_without_this_package_loading_fails_and_names_it(tmp_path: Path) -> None:
    _, compressed, _ = checkpoint(tmp_path)
    code = f"from transformers import AutoModelForCausalLM as M\nM.from_pretrained({str(compressed)!r})"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    bare = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert bare.returncode != 0
    assert NOTICE in bare.stderr.splitlines()[-1]
    taught = f"import publisher.checkpoint\n{code}"
    assert subprocess.run([sys.executable, "-c", taught], capture_output=True, check=False).returncode == 0


def test_config_of_the_family_is_otherwise_unchanged(tmp_path: Path) -> None:
    dense, compressed, _ = checkpoint(tmp_path)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (dense, compressed))
    assert after == before | {"quantization_config": {"quant_method": "loram_sparse"}, FILE_KEY: NOTICE}
    assert PreTrainedConfig.from_pretrained(compressed).model_type == "llama"
