"""Shapes and counts of a decoder from its config alone: no weights, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Annotated

from pydantic import Field

from publisher.architecture.structure import LayerKind, Shape, TensorSpec, Unit


@dataclass(frozen=True)
class LayerWidths:
    """What one decoder layer holds: query heads, KV heads (each serves query_heads / kv_heads), neurons, experts.

    0 where a layer has nothing of the kind that could be removed: the neurons of experts, linear attention.
    """

    query_heads: Annotated[int, Field(description="0 where attention cannot be pruned")]
    kv_heads: Annotated[int, Field(description="each serves query_heads / kv_heads query heads")]
    neurons: Annotated[int, Field(description="of the MLP; 0 where there are only experts")]
    experts: Annotated[int, Field(description="0 where there are none")] = 0

    @property
    def counts(self) -> dict[Unit, int]:
        return {Unit.KV_HEADS: self.kv_heads, Unit.NEURONS: self.neurons, Unit.EXPERTS: self.experts}


@dataclass(frozen=True)
class Geometry:
    """The sizes of a decoder, and what each of its layers is made of.

    `intermediate_size` is that of dense MLPs; `experts` of them per layer in mixtures (0 elsewhere), of which
    `experts_per_token` work. Layer `i` is of kind `kinds[kind_of[i]]`, its tensors are named
    `layer_prefix + str(i) + "." + …`; `outside` has the others (embeddings, norm, head) as files name them.
    `fields`: a width's name in LayerWidths → the config's name for it. `whole`: units that every layer keeps, and why.
    `tied`: a tensor that files may hold although it is the same as another → that other, which is in `outside`.
    `ignored`: patterns (`re.search`) of what transformers leaves unread if files hold it: buffers, layers for MTP.
    """

    family: str
    hidden_size: int
    intermediate_size: int
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied_embeddings: bool
    experts: int
    experts_per_token: int
    layer_prefix: str
    kinds: tuple[LayerKind, ...]
    kind_of: tuple[int, ...]
    outside: Mapping[str, Shape]
    fields: Mapping[str, str]
    whole: Mapping[Unit, str] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def group_size(self) -> int:
        """Query heads that share one KV head."""
        return self.query_heads // self.kv_heads

    def kind(self, layer: int) -> LayerKind:
        return self.kinds[self.kind_of[layer]]

    @cached_property
    def full_widths(self) -> tuple[LayerWidths, ...]:
        """Of every layer of the base model."""
        return tuple(self.widths_of(self.kind(layer).units) for layer in range(self.layers))

    def widths_of(self, units: Mapping[Unit, int]) -> LayerWidths:
        """LayerWidths of so many units; those that are not named are 0."""
        kv_heads = units.get(Unit.KV_HEADS, 0)
        return LayerWidths(kv_heads * self.group_size, kv_heads, units.get(Unit.NEURONS, 0), units.get(Unit.EXPERTS, 0))

    def tensor_shapes(self, widths: Sequence[LayerWidths] | None = None) -> dict[str, Shape]:
        """Every weight's name and shape, as in the safetensors files; `widths` has one entry per layer.

        Experts are numbered anew in a layer that loses some.
        """
        shapes = dict(self.outside)
        for layer, width in enumerate(widths or self.full_widths):
            for name, spec in remaining(self.kind(layer), width).items():
                shapes[f"{self.layer_prefix}{layer}.{name}"] = spec.pruned_shape(width.counts)
        return shapes

    def parameters(self, widths: Sequence[LayerWidths] | None = None) -> int:
        """Parameters in total; tied embeddings count once."""
        outside = sum(map(prod, self.outside.values()))
        counted: dict[tuple[int, LayerWidths], int] = {}
        for kind, width in zip(self.kind_of, widths or self.full_widths, strict=True):
            if (kind, width) not in counted:
                specs = remaining(self.kinds[kind], width).values()
                counted[kind, width] = sum(prod(spec.pruned_shape(width.counts)) for spec in specs)
        return outside + sum(counted[key] for key in zip(self.kind_of, widths or self.full_widths, strict=True))


def remaining(kind: LayerKind, width: LayerWidths) -> dict[str, TensorSpec]:
    """The layer's tensors without those of experts that do not fit: experts keep the first numbers."""
    experts = width.experts if Unit.EXPERTS in kind.units else None
    return {
        name: spec
        for name, spec in kind.tensors.items()
        if spec.expert is None or experts is None or spec.expert < experts
    }
