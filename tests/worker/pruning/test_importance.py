"""Scores against sums written out by hand, unit by unit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

from publisher.architecture.geometry import Geometry
from publisher.architecture.structure import Unit
from publisher.errors import RequestFault
from publisher.families.introspection import geometry_of
from tests.devices import each_device
from tests.models import tiny_llama
from tests.worker.streaming.families import FAMILIES, save_tiny
from worker.pruning.importance import magnitude_importance, random_importance, weigh_by_norms
from worker.pruning.input_sums import sums_by_inputs
from worker.pruning.scores import scored_tensors, square_sums
from worker.streaming.model import LayerStream
from worker.streaming.weights import read_config

HEAD_DIM, GROUP_SIZE, KV_HEADS, NEURONS, LAYERS = 8, 2, 2, 48, 4
SEQUENCES = torch.randint(0, 256, (5, 24), generator=torch.Generator().manual_seed(1))


def by_hand(values: dict[str, Tensor], layer: int) -> tuple[list[float], list[float]]:
    """Sums of `values` (named as weights) over each KV head's and each neuron's rows and columns in LLaMA."""
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


def assert_equals_by_hand(
    importance: dict[str, Tensor], values: dict[str, Tensor], power: float = 1.0, rel: float = 1e-9
) -> None:
    for layer in range(LAYERS):
        heads, neurons = by_hand(values, layer)
        found = importance[f"model.layers.{layer}.kv_heads"].tolist()
        assert found == pytest.approx([head**power for head in heads], rel=rel)
        found = importance[f"model.layers.{layer}.neurons"].tolist()
        assert found == pytest.approx([neuron**power for neuron in neurons], rel=rel)


def geometry_in(folder: Path) -> Geometry:
    return geometry_of(read_config(folder))


def magnitudes(geometry: Geometry, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each weight comes in blocks of three rows."""
    squares = {
        name: square_sums(three_rows(weights[name]), spec.shape, spec.axis)
        for name, (_, spec) in scored_tensors(geometry).items()
        if name in weights
    }
    return magnitude_importance(geometry, squares.items())


def three_rows(weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, len(weight), 3):
        yield slice(start, min(start + 3, len(weight))), weight[start : start + 3]


@pytest.mark.parametrize(("stored", "rel"), [(torch.float64, 1e-9), (torch.bfloat16, 1e-5)])
def test_magnitude_is_the_norm_of_the_unit(tmp_path: Path, stored: torch.dtype, rel: float) -> None:
    base = tiny_llama(tmp_path, dtype=stored)
    weights = load_file(base / "model.safetensors")
    importance = magnitudes(geometry_in(base), weights)
    squares = {name: weight.double() ** 2 for name, weight in weights.items()}
    assert_equals_by_hand(importance, squares, power=0.5, rel=rel)


def test_magnitude_of_an_expert_is_the_norm_of_its_weights_and_its_row_of_the_router(tmp_path: Path) -> None:
    base = save_tiny("mixtral", tmp_path)
    weights = load_file(base / "model.safetensors")
    importance = magnitudes(geometry_in(base), weights)
    (router,) = [weight for name, weight in weights.items() if name.startswith("model.layers.1.") and "gate" in name]
    for expert in range(4):
        own = [weight for name, weight in weights.items() if f"layers.1.block_sparse_moe.experts.{expert}." in name]
        assert len(own) == 3
        squares = sum(float(weight.double().square().sum()) for weight in [*own, router[expert]])
        assert float(importance["model.layers.1.experts"][expert]) == pytest.approx(squares**0.5, rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_magnitude_scores_every_unit_of_every_family(tmp_path: Path, family: str) -> None:
    base = save_tiny(family, tmp_path)
    geometry = geometry_in(base)
    importance = magnitudes(geometry, load_file(base / "model.safetensors"))
    assert_scores_every_unit(geometry, importance)


def assert_scores_every_unit(geometry: Geometry, importance: dict[str, Tensor]) -> None:
    expected = {
        f"model.layers.{layer}.{unit}": count
        for layer in range(geometry.layers)
        for unit, count in geometry.kind(layer).units.items()
    }
    assert {key: len(scores) for key, scores in importance.items()} == expected
    assert all((scores > 0).all() for scores in importance.values())


def test_magnitude_names_a_tensor_that_is_not_finite_or_missing(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path)
    weights = load_file(base / "model.safetensors")
    name = "model.layers.2.mlp.down_proj.weight"
    weights[name][3, 4] = torch.nan
    with pytest.raises(RequestFault, match=name):
        magnitudes(geometry_in(base), weights)
    del weights[name]
    with pytest.raises(RequestFault, match=name):
        magnitudes(geometry_in(base), weights)


def wanda_by_hand(folder: Path) -> dict[str, Tensor]:
    """|weight| × input norm of every linear layer of the whole model."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    seen: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: seen.setdefault(name, []).append(inputs[0].flatten(0, -2))
            )
    with torch.no_grad():
        model(SEQUENCES)
    norms = {name: torch.cat(inputs).double().norm(dim=0) for name, inputs in seen.items()}
    return {f"{name}.weight": model.get_submodule(name).weight.abs() * norm for name, norm in norms.items()}


def streamed_wanda(folder: Path, device: str = "cpu") -> dict[str, Tensor]:
    scratch = folder / "scratch"
    scratch.mkdir()
    stream, geometry = LayerStream(folder, device), geometry_in(folder)
    return sums_by_inputs(stream, geometry, SEQUENCES, weigh_by_norms, scratch=scratch, report=lambda done, total: None)


@each_device
def test_wanda_is_weight_times_input_norm_summed_over_the_unit(tmp_path: Path, device: str) -> None:
    base = tiny_llama(tmp_path)
    products = {name: value.detach() for name, value in wanda_by_hand(base).items()}
    assert_equals_by_hand(streamed_wanda(base, device), products, rel={"cpu": 1e-4, "cuda": 1e-3}[device])


@each_device
@pytest.mark.parametrize("family", FAMILIES)
def test_wanda_scores_every_unit_of_every_family(tmp_path: Path, family: str, device: str) -> None:
    base = save_tiny(family, tmp_path)
    assert_scores_every_unit(geometry_in(base), streamed_wanda(base, device))


def test_wanda_of_an_expert_takes_the_tokens_that_were_sent_to_it(tmp_path: Path) -> None:
    base = save_tiny("mixtral", tmp_path)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    model.set_experts_implementation("eager")
    block = model.model.layers[1].mlp
    routed: list[tuple[Tensor, Tensor]] = []
    block.experts.register_forward_pre_hook(lambda _, inputs: routed.append((inputs[0], inputs[1])))
    with torch.no_grad():
        model(SEQUENCES)
    states, chosen = (torch.cat(parts) for parts in zip(*routed, strict=True))
    found = streamed_wanda(base)["model.layers.1.experts"]
    for expert in range(4):
        x = states[(chosen == expert).any(dim=-1)]
        gate_up, down = block.experts.gate_up_proj[expert], block.experts.down_proj[expert]
        gate, up = functional.linear(x, gate_up).chunk(2, dim=-1)
        middle = functional.silu(gate) * up
        total = (gate_up.abs() * x.norm(dim=0)).sum() + (down.abs() * middle.norm(dim=0)).sum()
        total += (block.gate.weight[expert].abs() * states.norm(dim=0)).sum()
        assert float(found[expert]) == pytest.approx(total.item(), rel=1e-4)


def test_random_follows_the_seed_and_differs_between_layers(tmp_path: Path) -> None:
    geometry = geometry_in(save_tiny("qwen3_moe", tmp_path))
    first, again, other = (random_importance(geometry, seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    assert not torch.equal(first["model.layers.0.experts"], first["model.layers.2.experts"])
    assert_scores_every_unit(geometry, first)


def test_random_scores_of_a_layer_do_not_depend_on_other_layers(tmp_path: Path) -> None:
    few = random_importance(geometry_in(tiny_llama(tmp_path / "few", num_hidden_layers=2)), 0)
    many = random_importance(geometry_in(tiny_llama(tmp_path / "many", num_hidden_layers=6)), 0)
    assert all(torch.equal(many[name], scores) for name, scores in few.items())
    assert f"model.layers.5.{Unit.NEURONS}" in many
