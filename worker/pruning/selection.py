"""Which heads, neurons and experts stay, by their importance.

Importance is compared within a layer, or with scope global between layers, or with scope joint between heads and
neurons as well (worker.pruning.joint). How far scores can be compared as they are, their criterion declares: taylor's
are changes of one and the same loss, random's draws from one distribution; magnitudes and wanda's sums of activations
grow with the scale of a layer, so each is divided by its layer's mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import assert_never

import torch
from torch import Tensor

from publisher.architecture.geometry import Geometry, LayerWidths
from publisher.architecture.structure import Unit
from publisher.architecture.widths import kept_units_per_layer, pruned_widths, step, unprotected_layers
from publisher.recipe import Pruning, Scope
from publisher.recipe.criteria.register import criterion_spec
from publisher.recipe.criteria.spec import Comparison
from worker.pruning.joint import joint_counts


def importance_key(geometry: Geometry, layer: int, unit: Unit) -> str:
    """The name of a layer's scores `(units,)` in importance.safetensors."""
    return f"{geometry.layer_prefix}{layer}.{unit}"


def named_scores(geometry: Geometry, found: Mapping[int, Mapping[Unit, Tensor]]) -> dict[str, Tensor]:
    """Scores of each layer's units by `importance_key`."""
    return {
        importance_key(geometry, layer, unit): scores
        for layer, units in found.items()
        for unit, scores in units.items()
    }


def kept_units(
    geometry: Geometry, pruning: Pruning, importance: Mapping[str, Tensor]
) -> dict[tuple[int, Unit], Tensor]:
    """(layer, unit) → sorted kept indices, int64, for every layer and unit that loses something.

    `importance` maps `importance_key` to scores `(units,)`. In total as many units stay as `pruned_widths` says, layer
    by layer unless the scope is global; with scope joint as many parameters, to within a unit. Of equally important
    units the first stays, in the first layer.
    """
    pruned_widths(geometry, pruning)  # refuses what cannot be had
    return {
        (layer, unit): most_important(importance[importance_key(geometry, layer, unit)], count)
        for (layer, unit), count in _counts(geometry, pruning, importance)
        if count < geometry.kind(layer).units[unit]
    }


def kept_widths(geometry: Geometry, kept: Mapping[tuple[int, Unit], Sequence[int] | Tensor]) -> tuple[LayerWidths, ...]:
    """The widths that `kept_units` leaves, every layer's own."""
    return tuple(
        geometry.widths_of(
            {
                unit: len(kept[layer, unit]) if (layer, unit) in kept else units
                for unit, units in geometry.kind(layer).units.items()
            }
        )
        for layer in range(geometry.layers)
    )


def most_important(importance: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest of `importance` `(units,)`, ascending; of equal ones the first."""
    order = torch.sort(importance, descending=True, stable=True).indices
    return order[:count].sort().values


def shares(scores: Tensor, per_layer: int, *, floor: int, multiple: int) -> list[int]:
    """How many units each layer keeps, if one threshold decides for all of `scores` `(layers, units)`.

    `layers * per_layer` in total, at least `floor` each (but never more than `per_layer`), in multiples of `multiple`;
    `per_layer` is one. A block of `multiple` units counts with the sum of their scores.
    """
    layers, units = scores.shape
    blocks = units // multiple
    ranked = scores.double().sort(dim=1, descending=True).values[:, : blocks * multiple]
    worth = ranked.reshape(layers, blocks, multiple).sum(dim=2)  # (layers, blocks), falling within a layer
    least = min(ceil(floor / multiple), per_layer // multiple)
    wanted = layers * (per_layer // multiple - least)
    chosen = most_important(worth[:, least:].flatten(), wanted)
    extra = torch.bincount(chosen // max(blocks - least, 1), minlength=layers)
    return [multiple * (least + int(more)) for more in extra]


def _counts(
    geometry: Geometry, pruning: Pruning, importance: Mapping[str, Tensor]
) -> Iterator[tuple[tuple[int, Unit], int]]:
    """Layers of one kind share what they lose among each other: only their units are of one size."""
    pruned = unprotected_layers(geometry, pruning)
    if pruning.scope is Scope.JOINT:
        found = {
            (layer, unit): importance[importance_key(geometry, layer, unit)]
            for layer in pruned
            for unit in geometry.kind(layer).units
        }
        floors = {(layer, unit): _floor(geometry, pruning, unit, len(each)) for (layer, unit), each in found.items()}
        yield from joint_counts(geometry, pruning, found, floors).items()
        return
    for kind in sorted({geometry.kind_of[layer] for layer in pruned}):
        layers = [layer for layer in pruned if geometry.kind_of[layer] == kind]
        for unit, per_layer in kept_units_per_layer(geometry, kind, pruning).items():
            counts = [per_layer] * len(layers)
            if pruning.scope is Scope.GLOBAL and per_layer < geometry.kinds[kind].units[unit]:
                scores = [importance[importance_key(geometry, layer, unit)] for layer in layers]
                counts = _global_counts(geometry, pruning, unit, scores, per_layer)
            yield from zip([(layer, unit) for layer in layers], counts, strict=True)


def _global_counts(
    geometry: Geometry, pruning: Pruning, unit: Unit, scores: Sequence[Tensor], per_layer: int
) -> list[int]:
    comparison = criterion_spec(pruning.criterion).scoring.compared
    compared = torch.stack([_comparable(each, comparison) for each in scores])
    floor = _floor(geometry, pruning, unit, compared.shape[1])
    return shares(compared, per_layer, floor=floor, multiple=step(geometry, unit, pruning))


def _floor(geometry: Geometry, pruning: Pruning, unit: Unit, units: int) -> int:
    match unit:
        case Unit.KV_HEADS:
            return 1
        case Unit.NEURONS:
            return ceil(pruning.neuron_floor * units)
        case Unit.EXPERTS:
            return geometry.experts_per_token


def _comparable(scores: Tensor, comparison: Comparison) -> Tensor:
    scores = scores.double()
    match comparison:
        case Comparison.ACROSS_LAYERS | Comparison.PER_PARAMETER:
            return scores
        case Comparison.WITHIN_LAYER:
            mean = scores.mean()
            return scores if mean == 0 else scores / mean
        case _:
            assert_never(comparison)
