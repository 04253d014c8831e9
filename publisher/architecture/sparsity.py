"""Which weights non-structured pruning reaches and how many of them stay: the same for every criterion. No torch."""

from __future__ import annotations

from math import prod
from typing import assert_never

from publisher.architecture.geometry import Geometry, LayerWidths
from publisher.architecture.structure import LayerKind, Shape, TensorSpec, Unit
from publisher.architecture.widths import pruned_widths, unprotected_layers
from publisher.errors import RequestFault, UnsupportedModel
from publisher.recipe.criteria.spec import PruningMethod
from publisher.recipe.pruning import Pattern, Pruning

_ROUTERS = ("gate", "router")


def prunable_matrices(kind: LayerKind) -> dict[str, Shape]:
    """The layer's matrices `(out, in)` by their names in files: projections and experts, no routers or norms."""
    return {name: spec.shape for name, spec in kind.tensors.items() if _is_prunable(name, spec)}


def _is_prunable(name: str, spec: TensorSpec) -> bool:
    return spec.shape[0] > 1 and is_projection(name, spec)


def is_projection(name: str, spec: TensorSpec) -> bool:
    """Whether a tensor of a layer is the matrix of a linear map: of a projection or an expert, not of a router."""
    if len(spec.shape) != 2 or not name.endswith(".weight"):
        return False
    module = name.removesuffix(".weight").rpartition(".")[2]
    routes = module in _ROUTERS or ".router." in name or any(part.unit is Unit.EXPERTS for part in spec.parts)
    return not routes and "norm" not in module


def parse_pattern(pattern: str) -> tuple[int, int]:
    """`"2:4"` → (2, 4): of 4 neighbouring weights of a row 2 stay."""
    known = Pattern(pattern)
    return known.kept, known.of


def removed_columns(columns: int, ratio: float) -> int:
    """How many weights of a row of `columns` go, without a pattern."""
    return int(columns * ratio)


def kept_weights(shape: Shape, ratio: float, pattern: str | None = None) -> int:
    """How many weights of a matrix `(out, in)` stay: with a pattern n:m n of every m, otherwise all but `ratio`."""
    rows, columns = shape
    if pattern is None:
        return rows * (columns - removed_columns(columns, ratio))
    kept, of = parse_pattern(pattern)
    return rows * (columns // of * kept)


def pattern_of(pruning: Pruning) -> Pattern | None:
    """The recipe's n:m; None for methods that have none."""
    match pruning.method:
        case PruningMethod.SEMI_STRUCTURED:
            return pruning.pattern
        case PruningMethod.STRUCTURED | PruningMethod.UNSTRUCTURED:
            return None
        case _:
            assert_never(pruning.method)


def sparse_matrices(geometry: Geometry, pruning: Pruning) -> dict[str, Shape]:
    """Every matrix that loses weights, by its full name.

    Raises UnsupportedModel for one whose rows n:m does not divide, RequestFault if nothing would go or stay.
    """
    matrices = {
        f"{geometry.layer_prefix}{layer}.{name}": shape
        for layer in unprotected_layers(geometry, pruning)
        for name, shape in prunable_matrices(geometry.kind(layer)).items()
    }
    for name, (_, columns) in matrices.items():
        _refuse_columns(name, columns, pruning)
    return matrices


def pruned_parameters(geometry: Geometry, pruning: Pruning) -> int:
    """Parameters after pruning; of non-structured masks the kept weights count.

    Raises RequestFault or UnsupportedModel for what cannot be pruned so: the check before any work.
    """
    widths = pruned_widths(geometry, pruning)
    return parameters_of(geometry, widths, pruning)


def parameters_of(geometry: Geometry, widths: tuple[LayerWidths, ...], pruning: Pruning) -> int:
    """The same for widths that are known already."""
    total = geometry.parameters(widths)
    if pruning.method.removes_units:
        return total
    shapes = sparse_matrices(geometry, pruning).values()
    return total - sum(prod(shape) - kept_weights(shape, pruning.ratio, pattern_of(pruning)) for shape in shapes)


def _refuse_columns(name: str, columns: int, pruning: Pruning) -> None:
    pattern = pattern_of(pruning)
    if pattern is not None:
        if columns % pattern.of:
            raise UnsupportedModel(
                f"{name} has rows of {columns} weights, which are no multiple of {pattern.of}; "
                f"pattern {pattern} cannot be had.",
                field="recipe.pruning.pattern",
                way_out="Use method unstructured.",
            )
        return
    if not 0 < removed_columns(columns, pruning.ratio) < columns:
        what = "removes none" if removed_columns(columns, pruning.ratio) == 0 else "leaves none"
        raise RequestFault(
            f"ratio {pruning.ratio} {what} of the {columns} weights in a row of {name}.",
            field="recipe.pruning.ratio",
            way_out=f"Choose a {'larger' if what == 'removes none' else 'smaller'} ratio.",
        )
