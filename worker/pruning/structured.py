"""Choosing heads and neurons by importance, and cutting the others out of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from publisher.architecture import LayerWidths
from worker.pruning.groups import Group


def most_important(importance: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest of `importance` `(units,)`, ascending; of equal ones the first."""
    order = torch.sort(importance, descending=True, stable=True).indices
    return order[:count].sort().values


@dataclass(frozen=True)
class Cut:
    """What stays of one tensor: along `axis`, slices `kept` of `span` neighbouring entries each."""

    kept: Tensor
    axis: int
    span: int

    def __call__(self, tensor: Tensor) -> Tensor:
        entries = (self.kept[:, None] * self.span + torch.arange(self.span)).flatten()
        return tensor.index_select(self.axis, entries)


def kept_units(
    groups: Sequence[Group], widths: Sequence[LayerWidths], importance: Mapping[str, Tensor]
) -> dict[tuple[int, str], Tensor]:
    """(layer, unit) → kept indices, for every layer and group that becomes narrower."""
    return {
        (layer, group.unit): most_important(importance[group.importance_key(layer)], group.width(width))
        for layer, width in enumerate(widths)
        for group in groups
        if group.width(width) < group.units
    }


def tensor_cuts(groups: Sequence[Group], kept: Mapping[tuple[int, str], Tensor]) -> dict[str, Cut]:
    """Tensor name → its cut. A bias has one entry per output, so only that of a matrix that loses rows shrinks."""
    cuts: dict[str, Cut] = {}
    for (layer, unit), indices in kept.items():
        group = next(group for group in groups if group.unit == unit)
        for matrix in group.matrices:
            cut = Cut(indices, matrix.axis, matrix.span)
            cuts[f"{group.module(layer, matrix)}.weight"] = cut
            if matrix.axis == 0:
                cuts[f"{group.module(layer, matrix)}.bias"] = cut
    return cuts
