"""From numbers per weight to a score per unit: sums over all that a KV head, neuron or expert owns."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from publisher.architecture.geometry import Geometry
from publisher.architecture.structure import LayerKind, Shape, TensorSpec, Unit
from publisher.errors import RequestFault
from worker.streaming.casting import row_blocks

#: weights that are worked on at once: 2 MiB in fp32, which stays in a core's cache
_AT_ONCE = 2**19


def is_scored(spec: TensorSpec) -> bool:
    """Matrices that units own slices of, and an expert's own. Biases and norms are not counted."""
    return len(spec.shape) > 1 and (bool(spec.parts) or spec.expert is not None)


def scored_tensors(geometry: Geometry) -> dict[str, tuple[int, TensorSpec]]:
    """Name in files → (layer, spec) of every tensor that `is_scored`."""
    return {
        f"{geometry.layer_prefix}{layer}.{name}": (layer, spec)
        for layer in range(geometry.layers)
        for name, spec in geometry.kind(layer).tensors.items()
        if is_scored(spec)
    }


class UnitScores:
    """Sums per unit of layer `layer`, in fp64, to which its tensors are added one after another."""

    def __init__(self, kind: LayerKind, layer: int) -> None:
        self._layer = layer
        self.totals = {unit: torch.zeros(count, dtype=torch.float64) for unit, count in kind.units.items()}

    def add(self, name: str, spec: TensorSpec, sums: Tensor) -> None:
        """`sums` `(shape[axis],)`: a tensor's numbers summed over all axes but `spec.axis`.

        Raises RequestFault naming the tensor if they are not finite.
        """
        sums = sums.double().cpu()
        if not sums.isfinite().all():
            raise RequestFault(
                f"layer {self._layer}: {name} holds weights that are not finite, or its gradients or inputs are not.",
                way_out="Check that the base model gives finite losses; criterion random looks at no weights.",
            )
        if spec.expert is not None:
            self.totals[Unit.EXPERTS][spec.expert] += sums.sum()
        for part in spec.parts:
            total = self.totals[part.unit]
            owned = sums[part.offset : part.offset + len(total) * part.span]
            total += owned.reshape(len(total), part.span).sum(dim=1)


def sums_along(
    weight: Tensor, axis: int, numbers: Callable[[slice, Tensor], Tensor], at_once: int = _AT_ONCE
) -> Tensor:
    """Sums over all axes but `axis` of `numbers(rows, weight[rows])`, which are made a block of rows at a time.

    `weight` `(rows, …)` of any floating-point type is cast to at least fp32, block by block; `numbers` may overwrite
    the block it is given and returns one of the same shape. Returns `(weight.shape[axis],)`.
    """
    dtype = torch.promote_types(weight.dtype, torch.float32)
    sums = torch.zeros(weight.shape[axis], dtype=dtype, device=weight.device)
    for rows in row_blocks(weight, at_once):
        block = weight[rows].to(dtype, copy=True)
        _add_up(numbers(rows, block), axis, sums[rows] if axis == 0 else sums)
    return sums


def square_sums(blocks: Iterable[tuple[slice, Tensor]], shape: Shape, axis: int) -> Tensor:
    """Sums of squares over all axes but `axis` of a tensor of `shape` that comes as (rows, tensor[rows])."""
    sums = torch.zeros(shape[axis], dtype=torch.float64)
    for rows, block in blocks:
        (sums[rows] if axis == 0 else sums).add_(sums_along(block, axis, lambda _, part: part.square_()))
    return sums


def _add_up(block: Tensor, axis: int, sums: Tensor) -> None:
    """As products with ones where there are two axes: several times faster than adding up columns."""
    if block.dim() == 2:
        matrix = block if axis == 0 else block.T
        sums.addmv_(matrix, block.new_ones(matrix.shape[1]))
    else:
        sums += block.movedim(axis, 0).flatten(1).sum(dim=1)
