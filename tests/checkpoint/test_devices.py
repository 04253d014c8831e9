"""Masks and compressed weights on the device where they are used: the same values as on a CPU, made in another way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from publisher.checkpoint.compression import compress, compress_folder, expand
from publisher.checkpoint.masked import masked_product
from publisher.checkpoint.recovery.merging import merged_weight
from publisher.checkpoint.weight_masks import pack, unpack
from tests.checkpoint.sparse import random_model, write_masks, zero_pruned
from tests.devices import each_device

SIZES = {"vocab_size": 64, "hidden_size": 24, "intermediate_size": 35, "num_hidden_layers": 4}


def numbers(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@each_device
@pytest.mark.parametrize("columns", [1, 8, 13, 40])
def test_a_mask_is_unpacked_where_it_is(columns: int, device: str) -> None:
    mask = numbers(9, columns) > 0
    found = unpack(pack(mask).to(device), columns)
    assert found.device.type == device
    assert torch.equal(found.cpu(), mask)


@each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kept_weights_are_expanded_where_they_are(dtype: torch.dtype, device: str) -> None:
    weight, mask = numbers(9, 20).to(dtype), numbers(9, 20, seed=1) > 0
    found = expand(compress(weight, mask).to(device), mask.to(device))
    assert torch.equal(found.cpu(), weight * mask)


@each_device
def test_a_compressed_checkpoint_loads_onto_a_device(tmp_path: Path, device: str) -> None:
    config = LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2)
    random_model(config, torch.bfloat16).save_pretrained(tmp_path / "dense")
    masks = write_masks(tmp_path / "dense", tmp_path / "masks.safetensors")
    zero_pruned(tmp_path / "dense", masks)
    (tmp_path / "compressed").mkdir()
    compress_folder(tmp_path / "dense", masks, tmp_path / "compressed")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "compressed", dtype="auto", device_map={"": device})
    wanted = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", dtype="auto").state_dict()
    assert {parameter.device.type for parameter in loaded.parameters()} == {device}
    assert all(torch.equal(tensor.cpu(), wanted[name]) for name, tensor in loaded.state_dict().items())


@each_device
def test_a_masked_update_is_multiplied_and_merged_where_it_is(device: str) -> None:
    x, a, b, weight = numbers(5, 20), numbers(3, 20, seed=1), numbers(9, 3, seed=2), numbers(9, 20, seed=3)
    mask = numbers(9, 20, seed=4) > 0
    there = [tensor.to(device) for tensor in (x, a, b, pack(mask))]
    torch.testing.assert_close(masked_product(*there).cpu(), x @ (b @ a * mask).T, rtol=1e-4, atol=1e-4)
    merged = merged_weight(weight.to(device), (b @ a).to(device), mask.to(device)).cpu()
    torch.testing.assert_close(merged, weight + b @ a * mask, rtol=1e-6, atol=1e-6)
    assert torch.equal(merged[~mask], weight[~mask])
