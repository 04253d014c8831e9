"""Scores against sums written out by hand, head by head and neuron by neuron."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from tests.models import tiny_llama
from worker.pruning.groups import pruning_groups
from worker.pruning.importance import magnitude_importance, random_importance, taylor_importance
from worker.stages.weights import read_geometry

HEAD_DIM, GROUP_SIZE, KV_HEADS, NEURONS, LAYERS = 8, 2, 2, 48, 4
SEQUENCES = torch.randint(0, 256, (5, 24), generator=torch.Generator().manual_seed(1))


def by_hand(values: dict[str, Tensor], layer: int) -> tuple[list[float], list[float]]:
    """Sums of `values` (named as weights) over each KV head's and each neuron's rows and columns."""
    attention, mlp = f"model.layers.{layer}.self_attn.", f"model.layers.{layer}.mlp."
    heads, neurons = [], []
    for head in range(KV_HEADS):
        key = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        total = values[f"{attention}k_proj.weight"][key].sum() + values[f"{attention}v_proj.weight"][key].sum()
        for query in range(head * GROUP_SIZE, (head + 1) * GROUP_SIZE):
            rows = slice(query * HEAD_DIM, (query + 1) * HEAD_DIM)
            total += values[f"{attention}q_proj.weight"][rows].sum()
            total += values[f"{attention}o_proj.weight"][:, rows].sum()
        heads.append(float(total))
    for neuron in range(NEURONS):
        total = values[f"{mlp}gate_proj.weight"][neuron].sum() + values[f"{mlp}up_proj.weight"][neuron].sum()
        neurons.append(float(total + values[f"{mlp}down_proj.weight"][:, neuron].sum()))
    return heads, neurons


def assert_equals_by_hand(importance: dict[str, Tensor], values: dict[str, Tensor], power: float = 1.0) -> None:
    for layer in range(LAYERS):
        heads, neurons = by_hand(values, layer)
        assert importance[f"model.layers.{layer}.self_attn.kv_heads"].tolist() == pytest.approx(
            [head**power for head in heads], rel=1e-9
        )
        assert importance[f"model.layers.{layer}.mlp.neurons"].tolist() == pytest.approx(
            [neuron**power for neuron in neurons], rel=1e-9
        )


def test_taylor_is_weight_times_gradient_summed_over_the_group(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base", dtype=torch.float64)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    for ids in SEQUENCES:  # one sample at a time, the plain definition: mean over samples of their mean losses
        logits = model(input_ids=ids[None]).logits[0, :-1]
        loss: Tensor = functional.cross_entropy(logits, ids[1:]) / len(SEQUENCES)
        loss.backward()  # type: ignore[no-untyped-call]
    products = {name: (p * p.grad).abs().detach() for name, p in model.named_parameters() if p.grad is not None}

    fresh = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    groups, seen = pruning_groups(read_geometry(base)), []
    importance = taylor_importance(
        fresh, groups, SEQUENCES, batch_size=2, report=lambda done, total: seen.append((done, total))
    )
    assert_equals_by_hand(importance, products)
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_taylor_needs_no_gradient_of_embeddings_and_head(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    taylor_importance(
        model, pruning_groups(read_geometry(base)), SEQUENCES, batch_size=8, report=lambda done, total: None
    )
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name, _ in model.named_parameters() if "_proj" in name}


def test_magnitude_is_the_norm_of_the_group(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base", dtype=torch.float64)
    weights = load_file(base / "model.safetensors")
    importance = magnitude_importance(pruning_groups(read_geometry(base)), LAYERS, weights.items())
    assert_equals_by_hand(importance, {name: weight**2 for name, weight in weights.items()}, power=0.5)


def test_random_follows_the_seed_and_differs_between_layers(tmp_path: Path) -> None:
    groups = pruning_groups(read_geometry(tiny_llama(tmp_path / "base")))
    first, again, other = (random_importance(groups, LAYERS, seed) for seed in (1, 1, 2))
    key = "model.layers.{}.mlp.neurons"
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first[key.format(0)], other[key.format(0)])
    assert not torch.equal(first[key.format(0)], first[key.format(1)])
