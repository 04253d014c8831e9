"""What a decoder layer is made of, as data: which tensors, and which slices of them stand and fall together.

Torch-free. Made once per config by publisher.families.introspection; read by the plan, by prune, and (as part of
the masks file) by recovery.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

Shape = tuple[int, ...]


class Unit(StrEnum):
    """What structured pruning removes as a whole. A KV head takes its query heads with it."""

    KV_HEADS = "kv_heads"
    NEURONS = "neurons"
    EXPERTS = "experts"


@dataclass(frozen=True)
class Part:
    """Unit `u` owns the entries `offset + u * span … offset + (u + 1) * span - 1` of a tensor's axis."""

    unit: Unit
    offset: int
    span: int


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of the whole layer and what pruning does to it.

    `parts` lie on one `axis` and, where there are any, cover it without gaps or overlaps: one for most projections,
    three for a packed q, k, v. `expert`: the tensor belongs to that expert and goes with it.
    """

    shape: Shape
    axis: int = 0
    parts: tuple[Part, ...] = ()
    expert: int | None = None

    def entries(self, kept: Mapping[Unit, Sequence[int]], units: Mapping[Unit, int]) -> list[int]:
        """Kept entries along `axis`, ascending within each part. A unit that `kept` does not name is whole."""
        return [
            part.offset + index * part.span + step
            for part in self.parts
            for index in kept.get(part.unit, range(units[part.unit]))
            for step in range(part.span)
        ]

    def pruned_shape(self, counts: Mapping[Unit, int]) -> Shape:
        """The shape that remains of `shape` when `counts` units remain."""
        if not self.parts:
            return self.shape
        size = sum(counts[part.unit] * part.span for part in self.parts)
        return (*self.shape[: self.axis], size, *self.shape[self.axis + 1 :])


@dataclass(frozen=True)
class LayerKind:
    """A decoder layer by the names after `model.layers.{i}.`; many layers are of one kind.

    `units` says how many of each there are. `tensors` is the layer as safetensors files name it; `modules` the same
    as transformers' modules do where that differs: experts are one tensor each in files, and fused in the module.
    """

    units: Mapping[Unit, int]
    tensors: Mapping[str, TensorSpec]
    modules: Mapping[str, TensorSpec] = field(default_factory=dict)

    @property
    def parameters(self) -> Mapping[str, TensorSpec]:
        """What a transformers layer of this kind has as parameters."""
        return self.modules or self.tensors
