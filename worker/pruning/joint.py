"""One budget of parameters for the heads, neurons and experts of all layers: what matters least per parameter goes.

Taylor's scores are changes of one and the same loss, so a head can be weighed against as many parameters of neurons,
and one layer against another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

from torch import Tensor

from publisher.architecture.geometry import Geometry
from publisher.architecture.structure import Unit
from publisher.architecture.widths import kept_units_per_layer, pruned_widths, step
from publisher.recipe import Pruning


@dataclass(frozen=True)
class _Units:
    """Of one kind in one layer; `parameters` go with each."""

    layer: int
    unit: Unit
    scores: Tensor
    parameters: int


@dataclass(frozen=True, slots=True)
class _Block:
    """`count` units that go together; `worth` is per parameter."""

    worth: float
    of: _Units
    count: int


def joint_counts(
    geometry: Geometry,
    pruning: Pruning,
    scores: Mapping[tuple[int, Unit], Tensor],
    floors: Mapping[tuple[int, Unit], int],
) -> dict[tuple[int, Unit], int]:
    """How many units stay of each (layer, unit) that `scores` `(units,)` are given for.

    No more parameters go than uniform widths would take, and for no other unit that could go is there enough left.
    Every layer keeps its `floors`, but no more for them than uniform widths keep. Of equally important units the first
    layers' stay.
    """
    budget = geometry.parameters() - geometry.parameters(pruned_widths(geometry, pruning))
    blocks: list[_Block] = []
    for (layer, unit), each in scores.items():
        uniform = kept_units_per_layer(geometry, geometry.kind_of[layer], pruning)[unit]
        multiple = step(geometry, unit, pruning)
        least = min(ceil(floors[layer, unit] / multiple) * multiple, uniform)
        blocks += _removable(_Units(layer, unit, each, _parameters(geometry, layer, unit)), multiple, least)
    counts = {key: len(each) for key, each in scores.items()}
    for block in sorted(blocks, key=lambda block: (block.worth, -block.of.layer)):
        parameters = block.count * block.of.parameters
        if parameters <= budget:
            budget -= parameters
            counts[block.of.layer, block.of.unit] -= block.count
    return counts


def _removable(units: _Units, multiple: int, least: int) -> Iterator[_Block]:
    """The least important first. Kept units come in multiples, so the first block is what is beyond one."""
    ranked = units.scores.double().sort(descending=True).values / units.parameters
    whole, beyond = divmod(len(ranked), multiple)
    worth = ranked[: whole * multiple].view(whole, multiple).mean(dim=1).tolist()
    if beyond and whole * multiple >= least:
        yield _Block(float(ranked[-beyond:].mean()), units, beyond)
    for count in range(whole, ceil(least / multiple), -1):
        yield _Block(worth[count - 1], units, multiple)


def _parameters(geometry: Geometry, layer: int, unit: Unit) -> int:
    """That go with one unit, while all others are there."""
    widths, units = list(geometry.full_widths), geometry.kind(layer).units
    widths[layer] = geometry.widths_of({**units, unit: units[unit] - 1})
    return geometry.parameters() - geometry.parameters(widths)
