"""What stays, against definitions written out and against the plan."""

from __future__ import annotations

from functools import cache
from math import ceil, gcd
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from publisher.architecture.geometry import Geometry, LayerWidths
from publisher.architecture.structure import Unit
from publisher.architecture.widths import pruned_widths
from publisher.errors import RequestFault
from publisher.families.describe import describe
from publisher.recipe import Pruning
from tests.architecture.test_widths import LLAMA, MIXTURE
from worker.pruning.selection import importance_key, kept_units, kept_widths, most_important, shares

CONFIGS = {
    "llama": LLAMA | {"num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 8},
    "mixture": MIXTURE | {"num_hidden_layers": 6, "mlp_only_layers": [1, 3]},
    "no multiple": LLAMA | {"num_hidden_layers": 6, "intermediate_size": 50},
}


@cache
def geometry_of(name: str) -> Geometry:
    return describe(CONFIGS[name])


def pruning(**fields: Any) -> Pruning:
    plain = {"criterion": "random", "ratio": 0.5, "protect_first": 1, "protect_last": 1}
    return Pruning.model_validate(plain | fields)


def drawn(geometry: Geometry, seed: int, levels: int = 1000) -> dict[str, Tensor]:
    """Scores with ties, the more the fewer `levels`."""
    generator = torch.Generator().manual_seed(seed)
    return {
        importance_key(geometry, layer, unit): torch.randint(0, levels, (units,), generator=generator).float()
        for layer in range(geometry.layers)
        for unit, units in geometry.kind(layer).units.items()
    }


@settings(deadline=None)  # the first example of each family asks transformers for its layers
@given(
    name=st.sampled_from(sorted(CONFIGS)),
    ratio=st.floats(0.15, 0.85),
    scope=st.sampled_from(["uniform", "global"]),
    criterion=st.sampled_from(["random", "magnitude"]),
    round_to=st.sampled_from([1, 4, 8, 16]),
    floor=st.floats(0.01, 1),
    seed=st.integers(0, 1000),
    levels=st.sampled_from([2, 1000]),
)
def test_what_stays_has_the_parameters_of_the_plan(
    name: str, ratio: float, scope: str, criterion: str, round_to: int, floor: float, seed: int, levels: int
) -> None:
    geometry = geometry_of(name)
    asked = {"scope": scope, "neuron_floor": floor} if scope == "global" else {}
    recipe = pruning(ratio=ratio, criterion=criterion, round_to=round_to, **asked)
    try:
        planned = pruned_widths(geometry, recipe)
    except RequestFault:
        return
    kept = kept_units(geometry, recipe, drawn(geometry, seed, levels))
    widths = kept_widths(geometry, kept)
    assert geometry.parameters(widths) == geometry.parameters(planned)
    for (layer, unit), indices in kept.items():
        units = geometry.kind(layer).units[unit]
        assert 1 <= layer < geometry.layers - 1
        assert indices.tolist() == sorted(set(indices.tolist()))
        assert 0 < len(indices) < units
        if unit is Unit.NEURONS:
            assert len(indices) % round_to == 0
            assert len(indices) >= min(floor * units, planned[layer].neurons)
        if unit is Unit.KV_HEADS:
            assert len(indices) * geometry.head_dim % round_to == 0
        if unit is Unit.EXPERTS:
            assert len(indices) >= geometry.experts_per_token


def test_a_layer_keeps_its_most_important_units() -> None:
    assert most_important(torch.tensor([3.0, 1.0, 5.0, 3.0, 4.0]), 3).tolist() == [0, 2, 4]


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_one_threshold_parts_kept_from_removed(seed: int) -> None:
    """By the definition: without floors, every kept unit is at least as important as every removed one."""
    geometry, recipe = geometry_of("llama"), pruning(scope="global", neuron_floor=0.0001, criterion="taylor",
                                                     calibration={"corpus": "general"})  # fmt: skip
    importance = drawn(geometry, seed)
    kept = kept_units(geometry, recipe, importance)
    scores = {layer: importance[importance_key(geometry, layer, Unit.NEURONS)] for layer in range(1, 5)}
    stays = {layer: set(kept[layer, Unit.NEURONS].tolist()) for layer in scores}
    lowest = min(float(scores[layer][index]) for layer in scores for index in stays[layer])
    highest = max(float(scores[layer][i]) for layer in scores for i in set(range(48)) - stays[layer])
    assert lowest >= highest


def test_every_layer_keeps_its_floor() -> None:
    scores = torch.tensor([[9.0] * 10, [1.0] * 10])
    assert shares(scores, 5, floor=2, multiple=1) == [8, 2]
    assert shares(scores, 5, floor=1, multiple=5) == [5, 5]
    assert shares(scores, 6, floor=1, multiple=2) == [10, 2]


def test_ties_go_to_the_first_layer() -> None:
    assert shares(torch.ones(3, 4), 2, floor=1, multiple=1) == [4, 1, 1]


def test_a_block_counts_with_the_sum_of_its_units() -> None:
    """The most important unit is the first layer's, the most important pair the second's."""
    assert shares(torch.tensor([[10.0, 1.0, 0.0, 0.0], [6.0, 6.0, 5.0, 5.0]]), 2, floor=0, multiple=2) == [2, 2]
    assert shares(torch.tensor([[10.0, 1.0, 0.0, 0.0], [6.0, 6.0, 6.0, 6.0]]), 2, floor=0, multiple=2) == [0, 4]


@pytest.mark.parametrize(("criterion", "even"), [("magnitude", True), ("random", False)])
def test_the_scale_of_a_layer_counts_where_it_means_something(criterion: str, even: bool) -> None:
    """Magnitudes of a layer that is a hundred times as large say nothing; random scores are taken as they are."""
    geometry = geometry_of("llama")
    ranks = torch.arange(1.0, 49)
    importance = drawn(geometry, 0) | {
        importance_key(geometry, layer, Unit.NEURONS): ranks * 100**layer for layer in range(geometry.layers)
    }
    kept = kept_units(geometry, pruning(scope="global", criterion=criterion, neuron_floor=0.125), importance)
    counts = [layer.neurons for layer in kept_widths(geometry, kept)[1:-1]]
    assert counts == ([24, 24, 24, 24] if even else [6, 6, 36, 48])


def test_importance_that_leaves_a_unit_out_is_not_guessed() -> None:
    with pytest.raises(KeyError, match=r"model\.layers\.1\.kv_heads"):
        kept_units(geometry_of("llama"), pruning(), {})


def joint(**fields: Any) -> Pruning:
    return pruning(scope="joint", criterion="taylor", calibration={"corpus": "general"}, **fields)


@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(CONFIGS)),
    ratio=st.floats(0.15, 0.85),
    round_to=st.sampled_from([1, 4, 16]),
    floor=st.floats(0.01, 1),
    seed=st.integers(0, 1000),
    levels=st.sampled_from([2, 1000]),
)
def test_heads_and_neurons_of_all_layers_share_the_parameters_of_the_plan(
    name: str, ratio: float, round_to: int, floor: float, seed: int, levels: int
) -> None:
    geometry, recipe = geometry_of(name), joint(ratio=ratio, round_to=round_to, neuron_floor=floor)
    try:
        planned = pruned_widths(geometry, recipe)
    except RequestFault:
        return
    widths = kept_widths(geometry, kept_units(geometry, recipe, drawn(geometry, seed, levels)))
    beyond = geometry.parameters(widths) - geometry.parameters(planned)
    assert beyond >= 0
    for layer in range(geometry.layers):
        width, full, uniform = (each[layer] for each in (widths, geometry.full_widths, planned))
        if layer in {0, geometry.layers - 1}:
            assert width == full
            continue
        heads = round_to // gcd(round_to, geometry.head_dim)
        floors = {
            Unit.NEURONS: (round_to, min(ceil(floor * full.neurons / round_to) * round_to, uniform.neurons)),
            Unit.KV_HEADS: (heads, min(heads, uniform.kv_heads)),
            Unit.EXPERTS: (1, geometry.experts_per_token),
        }
        for unit, units in geometry.kind(layer).units.items():
            kept, (multiple, least) = width.counts[unit], floors[unit]
            assert kept >= least
            assert kept == units or kept % multiple == 0
            less = (kept - 1) // multiple * multiple
            if less >= least:  # that it went, too, would have been more than the plan takes
                narrower = [*widths[:layer], with_units(geometry, width, unit, less), *widths[layer + 1 :]]
                assert beyond < geometry.parameters(widths) - geometry.parameters(narrower)


def with_units(geometry: Geometry, width: LayerWidths, unit: Unit, count: int) -> LayerWidths:
    return geometry.widths_of({**width.counts, unit: count})


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_whatever_stays_is_worth_more_for_its_parameters_than_what_goes(seed: int) -> None:
    """By the definition, heads against neurons and layer against layer: but for the heads for which the rest was too
    little, which goes in neurons."""
    geometry, recipe = geometry_of("llama"), joint(neuron_floor=0.0001)
    importance = drawn(geometry, seed)
    sizes = {Unit.NEURONS: 3 * geometry.hidden_size, Unit.KV_HEADS: 4 * geometry.head_dim * geometry.hidden_size}
    for layer in range(geometry.layers):
        importance[importance_key(geometry, layer, Unit.KV_HEADS)] *= sizes[Unit.KV_HEADS] / sizes[Unit.NEURONS]
    kept = kept_units(geometry, recipe, importance)
    stays: list[tuple[float, Unit]] = []
    goes: list[float] = []
    for layer in range(1, 5):
        for unit, size in sizes.items():
            worth = importance[importance_key(geometry, layer, unit)] / size
            left = kept.get((layer, unit), torch.arange(len(worth)))
            gone = [index for index in range(len(worth)) if index not in set(left.tolist())]
            stays += [(float(worth[index]), unit) for index in left] if len(left) > 1 else []
            goes += [float(worth[index]) for index in gone]
    assert {unit for worth, unit in stays if worth < max(goes)} <= {Unit.KV_HEADS}
    rest = [worth for worth in goes if worth > min(stays)[0]]
    assert len(rest) * sizes[Unit.NEURONS] < sizes[Unit.KV_HEADS]
