"""Quantizing tensor by tensor writes what transformers writes of the whole model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM

from publisher.errors import JobCancelled
from tests.devices import each_device
from tests.models import tiny_llama
from tests.worker.streaming.families import FAMILIES, save_tiny
from worker.context import RecordingContext
from worker.quantization.nf4 import quantize_nf4, quantize_whole

TOKENS = torch.arange(24).view(2, 12)


def tensors(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    return found


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def both_ways(model: Path, folder: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    quantize_nf4(model, folder / "streamed", device)
    quantize_whole(model, folder / "whole", device)
    return tensors(folder / "streamed"), tensors(folder / "whole")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_is_the_one_that_transformers_writes(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Packed projections (Phi-3), experts fused in the model (Mixtral, Qwen3-MoE), biases (Qwen2), tied embeddings."""
    assert_same(*both_ways(save_tiny(family, tmp_path / "base", dtype=dtype), tmp_path))


@each_device
def test_widths_that_no_block_divides_and_layers_that_differ(tmp_path: Path, device: str) -> None:
    odd = tiny_llama(
        tmp_path / "base",
        hidden_size=40,
        intermediate_size=75,
        attention_bias=True,
        head_dim=10,
        per_layer_config={"1": {"intermediate_size": 33}},
    )
    assert_same(*both_ways(odd, tmp_path, device))


@each_device
def test_the_bytes_are_a_cpus_but_for_ties(tmp_path: Path, device: str) -> None:
    model = tiny_llama(tmp_path / "base", hidden_size=128, intermediate_size=320, head_dim=32)
    for name, on in (("cpu", "cpu"), ("there", device)):
        quantize_nf4(model, tmp_path / name, on)
    wanted, found = (tensors(tmp_path / name) for name in ("cpu", "there"))
    for name, tensor in wanted.items():
        same = (found[name] == tensor).double().mean()
        assert same > 0.99, name


@each_device
def test_weights_of_many_blocks(tmp_path: Path, device: str) -> None:
    """A matrix that is read in several pieces, of rows that no quantization block divides."""
    wide = tiny_llama(tmp_path / "base", hidden_size=1032, intermediate_size=5003, num_hidden_layers=1, head_dim=8)
    found, wanted = both_ways(wide, tmp_path, device)
    assert_same(found, wanted)
    assert found["model.layers.0.mlp.down_proj.weight"].shape == (1032 * 5003 // 2, 1)


def test_configs_say_what_transformers_says(tmp_path: Path) -> None:
    both_ways(tiny_llama(tmp_path / "base"), tmp_path)
    for name in ("config.json", "generation_config.json"):
        found, wanted = (json.loads((tmp_path / way / name).read_text()) for way in ("streamed", "whole"))
        assert found == wanted, name


def test_shards_stay_as_they_are_and_the_index_fits(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "base", max_shard_size="40KB")
    found, wanted = both_ways(model, tmp_path)
    assert_same(found, wanted)
    shards = sorted(path.name for path in model.glob("*.safetensors"))
    assert len(shards) > 1
    assert sorted(path.name for path in (tmp_path / "streamed").glob("*.safetensors")) == shards
    index = json.loads((tmp_path / "streamed" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == found.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())


@torch.no_grad()
def test_it_loads_and_comes_back_from_save_pretrained(tmp_path: Path) -> None:
    quantize_nf4(tiny_llama(tmp_path / "base", max_shard_size="40KB"), tmp_path / "nf4", "cpu")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "nf4")
    model.save_pretrained(tmp_path / "again")
    assert_same(tensors(tmp_path / "again"), tensors(tmp_path / "nf4"))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert torch.equal(model(TOKENS).logits, again(TOKENS).logits)


def test_progress_counts_tensors_and_a_cancelled_job_ends_between_two(tmp_path: Path) -> None:
    class Cancelled(RecordingContext):
        def progress(self, done: float, total: float, unit: str) -> None:
            assert (total, unit) == (3 + 4 * 9, "tensors")
            if done == 3:
                raise JobCancelled("stop")

    with pytest.raises(JobCancelled):
        quantize_nf4(tiny_llama(tmp_path / "base"), tmp_path / "nf4", "cpu", Cancelled())
