"""Cutting a base model: which tensor of the pruned model comes from which of the base model's, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from publisher.architecture.geometry import Geometry
from publisher.architecture.structure import LayerKind, Shape, TensorSpec, Unit
from worker.pruning.selection import kept_widths

#: (layer, unit) → kept indices, ascending; a layer and unit that is not named is whole
Kept = Mapping[tuple[int, Unit], Tensor]


@dataclass(frozen=True)
class CutTensor:
    """Tensor `name` of the pruned model: entries `entries` of `axis` of the base model's `source`; None: all of it."""

    name: str
    source: str
    shape: Shape
    axis: int = 0
    entries: Tensor | None = None

    def __call__(self, rows: slice, source: Tensor) -> tuple[int, Tensor]:
        """What stays of `source`, the rows `rows` of the base model's tensor, and the first row that it becomes."""
        if self.entries is None:
            return rows.start, source
        if self.axis > 0:
            return rows.start, _taken(source, self.axis, self.entries)
        first, end = torch.searchsorted(self.entries, torch.tensor([rows.start, rows.stop])).tolist()
        return first, source.index_select(0, self.entries[first:end] - rows.start)


def cut_tensors(geometry: Geometry, kept: Kept) -> list[CutTensor]:
    """Every tensor of the pruned model, by the names that files have."""
    tensors = [CutTensor(name, name, shape) for name, shape in geometry.outside.items()]
    for layer, width in enumerate(kept_widths(geometry, kept)):
        chosen = {unit: indices for (of, unit), indices in kept.items() if of == layer}
        prefix = f"{geometry.layer_prefix}{layer}."
        for name, source, spec in _renamed(geometry.kind(layer), chosen):
            shape = spec.pruned_shape(width.counts)
            entries = None if shape == spec.shape else _entries(spec, chosen, geometry.kind(layer).units)
            tensors.append(CutTensor(prefix + name, prefix + source, shape, spec.axis, entries))
    return tensors


def _renamed(kind: LayerKind, chosen: Mapping[Unit, Tensor]) -> Iterator[tuple[str, str, TensorSpec]]:
    """(name, name in the base model, spec) of what stays: experts move up to the numbers that became free."""
    experts = chosen.get(Unit.EXPERTS)
    numbers = None if experts is None else {old: new for new, old in enumerate(experts.tolist())}
    for source, spec in kind.tensors.items():
        if spec.expert is None or numbers is None:
            yield source, source, spec
        elif spec.expert in numbers:
            yield source.replace(f"experts.{spec.expert}.", f"experts.{numbers[spec.expert]}."), source, spec


def _entries(spec: TensorSpec, chosen: Mapping[Unit, Tensor], units: Mapping[Unit, int]) -> Tensor:
    parts = []
    for part in spec.parts:
        indices = chosen.get(part.unit)
        indices = torch.arange(units[part.unit]) if indices is None else indices.long()
        parts.append((part.offset + indices[:, None] * part.span + torch.arange(part.span)).flatten())
    return torch.cat(parts)


def _taken(source: Tensor, axis: int, entries: Tensor) -> Tensor:
    """NumPy's take is several times as fast as torch's along the last axis."""
    if source.element_size() != 2:
        return source.index_select(axis, entries)
    taken = source.view(torch.int16).numpy().take(entries.numpy(), axis=axis, mode="clip")
    return torch.from_numpy(taken).view(source.dtype)
