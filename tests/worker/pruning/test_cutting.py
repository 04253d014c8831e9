"""The oracle: a pruned model is the base model with the removed heads' and neurons' weights set to zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

import publisher.checkpoint  # noqa: F401 - teaches transformers layers of different widths
from publisher.architecture.structure import Unit
from publisher.architecture.widths import pruned_widths
from publisher.checkpoint.masks import load_masks
from publisher.errors import RequestFault
from publisher.recipe import Pruning, Recipe
from tests.models import tiny_llama
from worker.context import RecordingContext
from worker.pruning.selection import importance_key
from worker.request import BaseModelSource, BuildRequest
from worker.stages.inputs import PruneInputs
from worker.stages.prune import stage as prune
from worker.streaming.weights import read_config, read_geometry

MODELS = {
    "grouped queries": {},
    "one KV head per query head": {"num_key_value_heads": 4},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "tied embeddings": {"tie_word_embeddings": True},
    "head_dim of its own": {"head_dim": 6, "hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 3},
}


def pruning(ratio: float = 0.5, first: int = 1, last: int = 1) -> Pruning:
    return Pruning(criterion="random", ratio=ratio, protect_first=first, protect_last=last)


def prune_into(output: Path, base: Path, recipe_part: Pruning) -> Path:
    """Run the stage with random importance; returns its output folder."""
    geometry = read_geometry(base)
    output.mkdir()
    calibration = output.with_name(f"{output.name}-calibration")
    calibration.mkdir()
    generator = torch.Generator().manual_seed(3)
    importance = {
        importance_key(geometry, layer, unit): torch.rand(units, generator=generator)
        for layer in range(geometry.layers)
        for unit, units in geometry.kind(layer).units.items()
    }
    save_file(importance, calibration / "importance.safetensors")
    request = BuildRequest(BaseModelSource(str(base), "", base), Recipe(pruning=recipe_part), {})
    prune.run(request, PruneInputs(base=base, calibration=calibration), output, RecordingContext())
    return output


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()


def with_removed_weights_zeroed(base: Path, masks_file: Path) -> PreTrainedModel:
    """Written with the masks' meaning alone: query head q belongs to KV head q // group size."""
    model, masks = load(base), load_masks(masks_file)
    config = model.config
    group, head_dim = config.num_attention_heads // config.num_key_value_heads, config.head_dim
    for index, layer in enumerate(model.model.layers):
        kept_heads = masks.kept.get((index, Unit.KV_HEADS), range(config.num_key_value_heads))
        for query in range(config.num_attention_heads):
            if query // group not in kept_heads:
                layer.self_attn.o_proj.weight.data[:, query * head_dim : (query + 1) * head_dim] = 0
        kept_neurons = masks.kept.get((index, Unit.NEURONS), range(config.intermediate_size))
        removed = [neuron for neuron in range(config.intermediate_size) if neuron not in kept_neurons]
        layer.mlp.down_proj.weight.data[:, removed] = 0
    return model


def logits(model: PreTrainedModel) -> torch.Tensor:
    ids = torch.arange(48).reshape(2, 24) * 5
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=ids).logits
    return result


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())
def test_pruned_model_is_the_base_model_without_the_removed_units(tmp_path: Path, config: dict[str, Any]) -> None:
    base = tiny_llama(tmp_path / "base", dtype=torch.float64, **config)
    output = prune_into(tmp_path / "pruned", base, pruning())
    pruned, oracle = load(output / "model"), with_removed_weights_zeroed(base, output / "pruning_masks.safetensors")
    assert (logits(pruned) - logits(oracle)).abs().max() < 1e-9
    assert (logits(oracle) - logits(load(base))).abs().max() > 1e-3


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())
def test_pruned_model_has_exactly_the_planned_parameters(tmp_path: Path, config: dict[str, Any]) -> None:
    base = tiny_llama(tmp_path / "base", **config)
    geometry = read_geometry(base)
    output = prune_into(tmp_path / "pruned", base, pruning())
    planned = geometry.parameters(pruned_widths(geometry, pruning()))
    assert load(output / "model").num_parameters() == planned < geometry.parameters()


def test_protected_layers_are_whole_and_unnamed_in_the_masks(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    output = prune_into(tmp_path / "pruned", base, pruning())
    masks = load_masks(output / "pruning_masks.safetensors")
    assert set(masks.kept) == {(layer, unit) for layer in (1, 2) for unit in (Unit.KV_HEADS, Unit.NEURONS)}
    before, after = load_file(base / "model.safetensors"), load_file(output / "model" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before if "layers.0." in name or "layers.3." in name)


def test_a_small_ratio_takes_neurons_and_no_head(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    masks = load_masks(prune_into(tmp_path / "pruned", base, pruning(0.1)) / "pruning_masks.safetensors")
    assert {(layer, unit): len(kept) for (layer, unit), kept in masks.kept.items()} == {
        (1, Unit.NEURONS): 43,
        (2, Unit.NEURONS): 43,
    }


def test_layers_of_one_width_load_with_stock_transformers(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    output = prune_into(tmp_path / "pruned", base, pruning(first=0, last=0))
    config = read_config(output / "model")
    assert "per_layer_config" not in config
    assert (config["num_attention_heads"], config["head_dim"], config["intermediate_size"]) == (2, 8, 24)


def test_shards_keep_their_names_and_dtype(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base", dtype=torch.bfloat16, max_shard_size="20KB")
    model = prune_into(tmp_path / "pruned", base, pruning()) / "model"
    shards = [path.name for path in sorted(base.glob("*.safetensors"))]
    assert len(shards) > 2
    assert [path.name for path in sorted(model.glob("*.safetensors"))] == shards
    assert {tensor.dtype for name in shards for tensor in load_file(model / name).values()} == {torch.bfloat16}
    geometry = read_geometry(base)
    assert load(model).num_parameters() == geometry.parameters(pruned_widths(geometry, pruning()))


def test_a_head_that_is_tied_anyway_is_left_out(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base", tie_word_embeddings=True)
    tensors = load_file(base / "model.safetensors")
    extra = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    save_file(tensors | extra, base / "model.safetensors", metadata={"format": "pt"})
    model = prune_into(tmp_path / "pruned", base, pruning()) / "model"
    assert "lm_head.weight" not in load_file(model / "model.safetensors")


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base", max_shard_size="20KB")
    first, second = (prune_into(tmp_path / name, base, pruning()) for name in ("first", "second"))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestFault, match=r"tensor model\.layers\.2\.mlp\.up_proj\.weight .* NaN or infinite"):
        prune_into(tmp_path / "pruned", base, pruning())


def test_a_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    del tensors["model.layers.1.self_attn.k_proj.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestFault, match=r"model\.layers\.1\.self_attn\.k_proj\.weight is missing"):
        prune_into(tmp_path / "pruned", base, pruning())
