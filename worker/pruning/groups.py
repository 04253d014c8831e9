"""Which rows and columns of a decoder layer stand and fall together.

transformers' tensor-parallel plan says it: what runs in parallel on several GPUs without talking (the rows of a
`colwise` matrix, the columns of the `rowwise` one behind it) can also be removed without touching the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from publisher.architecture import Geometry, LayerWidths
from publisher.errors import UnsupportedModel

_PLAN_PREFIX = "layers.*."
_AXES = {"colwise": 0, "rowwise": 1}


@dataclass(frozen=True)
class Matrix:
    """A projection whose weight `(out, in)` has `span` neighbouring rows (axis 0) or columns (axis 1) per unit."""

    name: str
    axis: int
    span: int


@dataclass(frozen=True)
class Group:
    """`units` heads or neurons of a block (`self_attn`, `mlp`); each is one slice of every matrix."""

    block: str
    unit: str
    units: int
    matrices: tuple[Matrix, ...]

    def importance_key(self, layer: int) -> str:
        return f"model.layers.{layer}.{self.block}.{self.unit}"

    def module(self, layer: int, matrix: Matrix) -> str:
        return f"model.layers.{layer}.{self.block}.{matrix.name}"

    def width(self, widths: LayerWidths) -> int:
        """How many units a layer of these widths has."""
        return int(getattr(widths, self.unit))


def pruning_groups(geometry: Geometry) -> tuple[Group, ...]:
    """The groups of one layer (all layers of a base model are alike): attention by KV head, then MLP by neuron.

    A KV head takes its query heads with it. Raises UnsupportedModel if the plan splits anything else.
    """
    blocks: dict[str, list[tuple[str, int]]] = {}
    for block, projection, axis in _plan(geometry.family):
        blocks.setdefault(block, []).append((projection, axis))
    return tuple(_group(geometry, block, projections) for block, projections in blocks.items())


def _plan(family: str) -> Iterator[tuple[str, str, int]]:
    plan = CONFIG_MAPPING[family].base_model_tp_plan or {}
    for pattern, style in plan.items():
        block, _, projection = pattern.removeprefix(_PLAN_PREFIX).partition(".")
        if style not in _AXES or not pattern.startswith(_PLAN_PREFIX) or not projection:
            raise UnsupportedModel(
                f"family {family!r} splits {pattern} as {style!r}, which is not known how to prune.",
                way_out="Supported are plain colwise and rowwise projections of decoder layers.",
            )
        yield block, projection, _AXES[style]


def _group(geometry: Geometry, block: str, projections: list[tuple[str, int]]) -> Group:
    unit = {"self_attn": "kv_heads", "mlp": "neurons"}.get(block)
    if unit is None:
        raise UnsupportedModel(f"family {geometry.family!r} has a block {block!r}, which is not known how to prune.")
    units = int(getattr(geometry.full_width, unit))
    shapes = geometry.tensor_shapes()
    return Group(
        block=block,
        unit=unit,
        units=units,
        matrices=tuple(
            Matrix(name, axis, shapes[f"model.layers.0.{block}.{name}.weight"][axis] // units)
            for name, axis in projections
        ),
    )
