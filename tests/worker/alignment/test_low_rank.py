"""`trainable: low_rank`: LoRA beside the frozen weights, merged when alignment ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from publisher.checkpoint.weight_masks import WeightMasks, WeightMaskWriter
from publisher.recipe import Optimizer, Pruning
from tests.models import tiny_llama
from tests.worker.alignment.builds import BATCH_TOKENS, inputs_in, prepare, request
from worker.alignment.trainable import LowRank
from worker.context import RecordingContext
from worker.stages.align import stage as align

WEIGHTS = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in (0, 3)]
CPU = torch.device("cpu")


def _prune_single_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Half of two matrices of the pruned model; returns what is kept."""
    file = folder / "pruned" / "model.safetensors"
    weights, generator = load_file(file), torch.Generator().manual_seed(0)
    kept = {name: torch.rand(weights[name].shape, generator=generator) < 0.5 for name in WEIGHTS}
    save_file(weights | {name: weights[name] * kept[name] for name in WEIGHTS}, file, metadata={"format": "pt"})
    with WeightMaskWriter(folder / "pruning_masks.safetensors", {n: tuple(m.shape) for n, m in kept.items()}) as masks:
        for name, mask in kept.items():
            masks.write(name, mask)
    return kept


def _align_sparse(folder: Path, **alignment: object) -> dict[str, torch.Tensor]:
    asked = request(folder, **alignment)
    pruning = Pruning(method="unstructured", criterion="magnitude", ratio=0.5)
    asked = replace(asked, recipe=asked.recipe.model_copy(update={"pruning": pruning}))
    align.run(asked, inputs_in(folder), folder / "out", RecordingContext())
    return load_file(folder / "out" / "model" / "model.safetensors")


def test_it_lowers_the_loss_and_changes_linear_layers_alone(tmp_path: Path) -> None:
    context, inputs = RecordingContext(), prepare(tmp_path)
    asked = request(tmp_path, trainable="low_rank", rank=4, tokens=100 * BATCH_TOKENS, learning_rate=1e-2)
    align.run(asked, inputs, tmp_path / "out", context)
    losses = [value for name, _, value in context.metrics if name == "loss"]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    before = load_file(tmp_path / "pruned" / "model.safetensors")
    after = load_file(tmp_path / "out" / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, weight in before.items():
        assert ("_proj" in name) != torch.equal(weight.bfloat16(), after[name])
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model").dtype == torch.bfloat16


def test_merging_adds_the_update_and_computes_what_lora_did(tmp_path: Path) -> None:
    trainable = LowRank(tiny_llama(tmp_path), CPU, None, rank=4)
    tokens = torch.randint(0, 256, (2, 16), generator=torch.Generator().manual_seed(0))
    for name, weight in trainable.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    with torch.no_grad():
        before = trainable.model(tokens).logits
        torch.testing.assert_close(trainable.merged()(tokens).logits, before, atol=1e-4, rtol=1e-4)


def test_only_lora_is_trained_and_its_rank_is_the_recipe_s(tmp_path: Path) -> None:
    trainable = LowRank(tiny_llama(tmp_path), CPU, None, rank=5)
    trained = {name: weight for name, weight in trainable.model.named_parameters() if weight.requires_grad}
    assert len(trained) == 2 * 7 * 4
    assert all(5 in weight.shape and "lora_" in name for name, weight in trained.items())


def test_weights_that_were_pruned_one_by_one_stay_zero(tmp_path: Path) -> None:
    prepare(tmp_path)
    kept = _prune_single_weights(tmp_path)
    before = load_file(tmp_path / "pruned" / "model.safetensors")
    after = _align_sparse(tmp_path, trainable="low_rank", rank=4, learning_rate=1e-2)
    for name, mask in kept.items():
        assert not after[name][~mask].any()
        assert (after[name][mask] != before[name][mask].bfloat16()).float().mean() > 0.5


def test_the_masked_model_trains_as_it_is_merged(tmp_path: Path) -> None:
    prepare(tmp_path)
    _prune_single_weights(tmp_path)
    trainable = LowRank(tmp_path / "pruned", CPU, WeightMasks(tmp_path / "pruning_masks.safetensors"), rank=4)
    tokens = torch.randint(0, 256, (2, 16), generator=torch.Generator().manual_seed(0))
    for name, weight in trainable.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    with torch.no_grad():
        before = trainable.model(tokens).logits
        torch.testing.assert_close(trainable.merged()(tokens).logits, before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("optimizer", [Optimizer.GALORE_ADAMW, Optimizer.MUON, Optimizer.GRADNORMLORP, Optimizer.LOTUS])
def test_optimizers_that_mix_a_matrix_s_entries_leave_pruned_weights_at_zero(
    tmp_path: Path, optimizer: Optimizer
) -> None:
    prepare(tmp_path)
    kept = _prune_single_weights(tmp_path)
    after = _align_sparse(tmp_path, optimizer=optimizer, rank=8, learning_rate=1e-2)
    for name, mask in kept.items():
        assert not after[name][~mask].any()
        assert after[name][mask].all()
