"""What decoder layers are made of, told by the shapes of their tensors in models with one unit fewer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from publisher.architecture.structure import LayerKind, Part, Shape, TensorSpec, Unit
from publisher.errors import UnsupportedModel
from publisher.families.sizes import Sizes

Shapes = Mapping[str, Shape]

_LAYER = re.compile(r"(.*?\blayers\.)(\d+)\.(.+)")
_EXPERT = re.compile(r"experts\.(\d+)\.")


@dataclass(frozen=True)
class LayerTensors:
    """Tensors by layer and by name within it: their shapes, and those in models with one unit fewer."""

    prefix: str
    layers: Mapping[int, Shapes]
    outside: Shapes
    fewer: Mapping[Unit, Mapping[int, Shapes]]

    @classmethod
    def of(cls, shapes: Shapes, fewer: Mapping[Unit, Shapes]) -> LayerTensors:
        prefixes = {match[1] for match in map(_LAYER.fullmatch, shapes) if match}
        if len(prefixes) != 1:
            raise UnsupportedModel(f"the model has {len(prefixes)} stacks of layers; one is needed.")
        layers, outside = _by_layer(shapes)
        return cls(prefixes.pop(), layers, outside, {unit: _by_layer(less)[0] for unit, less in fewer.items()})

    def only(self, units: Sequence[Unit]) -> LayerTensors:
        """Without the models that have fewer of other units."""
        return replace(self, fewer={unit: self.fewer[unit] for unit in units})

    def specs(self, sizes: Sizes, layer: int) -> tuple[dict[str, TensorSpec], set[Unit]]:
        """The layer's tensors, and the units that they have."""
        specs = {name: TensorSpec(shape) for name, shape in self.layers[layer].items()}
        found: set[Unit] = set()
        for unit in self.fewer:
            cut = self._cut_by(sizes, layer, unit)
            if cut:
                found.add(unit)
                specs |= cut
        return specs, found

    def _cut_by(self, sizes: Sizes, layer: int, unit: Unit) -> dict[str, TensorSpec]:
        full, less = self.layers[layer], self.fewer[unit][layer]
        changed = {name: shape for name, shape in full.items() if less.get(name) != shape}
        if unit is Unit.NEURONS and any("experts" in name for name in changed):
            return {}  # the width of experts, which go as a whole
        return {
            name: _expert_tensor(name, shape)
            if unit is Unit.EXPERTS and (_EXPERT.search(name) or name not in less)
            else _cut_tensor(sizes, unit, name, shape, less.get(name))
            for name, shape in full.items()
            if name in changed or (unit is Unit.EXPERTS and changed and _EXPERT.search(name))
        }


def _by_layer(shapes: Shapes) -> tuple[dict[int, dict[str, Shape]], dict[str, Shape]]:
    layers: dict[int, dict[str, Shape]] = {}
    outside = {}
    for name, shape in shapes.items():
        match = _LAYER.fullmatch(name)
        if match:
            layers.setdefault(int(match[2]), {})[match[3]] = shape
        else:
            outside[name] = shape
    return layers, outside


def _expert_tensor(name: str, shape: Shape) -> TensorSpec:
    match = _EXPERT.search(name)
    if match is None:
        raise _NotCut(f"tensor {name} goes with an expert that its name does not tell")
    return TensorSpec(shape, expert=int(match[1]))


def _cut_tensor(sizes: Sizes, unit: Unit, name: str, shape: Shape, less: Shape | None) -> TensorSpec:
    axes = [] if less is None or len(less) != len(shape) else [i for i, n in enumerate(shape) if n != less[i]]
    units = sizes.units[unit]
    if less is None or len(axes) != 1 or (shape[axes[0]] - less[axes[0]]) * units != shape[axes[0]]:
        raise _NotCut(
            f"with one of {units} {unit_words(unit)} fewer, {name} of shape {shape} becomes {less}, which is not one "
            f"part of {units}"
        )
    axis = axes[0]
    return TensorSpec(shape, axis, _parts(sizes, unit, name, shape[axis] // units))


def _parts(sizes: Sizes, unit: Unit, name: str, span: int) -> tuple[Part, ...]:
    """One part, but for matrices that hold several projections one after another, which no plan tells."""
    module = name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]
    key = sizes.head_dim
    if module == "qkv_proj" and span == (sizes.group_size + 2) * key:
        spans = [sizes.group_size * key, key, key]
    elif module == "gate_up_proj" and unit is Unit.NEURONS and span == 2:
        spans = [1, 1]
    else:
        spans = [span]
    units = sizes.units[unit]
    return tuple(Part(unit, sum(spans[:i]) * units, each) for i, each in enumerate(spans))


def layer_kinds(
    sizes: Sizes, files: LayerTensors, modules: LayerTensors
) -> tuple[tuple[LayerKind, ...], tuple[int, ...]]:
    kinds: list[LayerKind] = []
    kind_of = []
    for layer in range(len(files.layers)):
        tensors, units = files.specs(sizes, layer)
        parameters, _ = modules.specs(sizes, layer)
        _refuse_uncut(tensors, units)
        kind = LayerKind(
            units={unit: sizes.units[unit] for unit in Unit if unit in units},
            tensors=tensors,
            modules={} if parameters == tensors else parameters,
        )
        if kind not in kinds:
            kinds.append(kind)
        kind_of.append(kinds.index(kind))
    return tuple(kinds), tuple(kind_of)


def uncut_units(sizes: Sizes, files: LayerTensors, modules: LayerTensors) -> dict[Unit, str]:
    """Units that no layer can lose, and why: those stay whole, and others may still go."""
    whole = {}
    for unit in files.fewer:
        try:
            layer_kinds(sizes, files.only([unit]), modules.only([unit]))
        except _NotCut as reason:
            whole[unit] = str(reason)
    return whole


def _refuse_uncut(tensors: Mapping[str, TensorSpec], units: set[Unit]) -> None:
    """A unit has matrices that write it (rows) and one that reads it (columns); experts a router besides their own."""
    for unit in units - {Unit.EXPERTS}:
        cut = [spec for spec in tensors.values() if any(part.unit is unit for part in spec.parts)]
        if {spec.axis for spec in cut if len(spec.shape) == 2} != {0, 1}:
            raise _NotCut(f"its {unit_words(unit)} are not rows of one matrix and columns of the next")


class _NotCut(Exception):
    """Why a unit cannot be removed from a layer."""


def unit_words(unit: Unit) -> str:
    return {Unit.KV_HEADS: "attention heads", Unit.NEURONS: "neurons", Unit.EXPERTS: "experts"}[unit]
