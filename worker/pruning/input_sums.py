"""Sums over what a unit owns of numbers made of its weights and of what they are multiplied with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from publisher.architecture.geometry import Geometry
from publisher.architecture.structure import LayerKind, Unit
from publisher.errors import UnsupportedModel
from worker.pruning.activations import Activations, Report, Steps, plan_passes
from worker.pruning.scores import UnitScores, is_scored, sums_along
from worker.pruning.selection import named_scores
from worker.streaming.model import LayerStream
from worker.streaming.products import watched_inputs

#: (weights in at least fp32, `(rows, in)` or `(experts, rows, in)`; L2 norms of their inputs, which broadcast over
#: them) → numbers of the weights' shape, which may take their place
Weigh = Callable[[Tensor, Tensor], Tensor]


def sums_by_inputs(
    stream: LayerStream, geometry: Geometry, sequences: Tensor, weigh: Weigh, *, scratch: Path, report: Report
) -> dict[str, Tensor]:
    """`{importance_key: (units,)}`: what `weigh` makes of a unit's weights, summed.

    Inputs are those of `sequences` `(samples, length)` int64 on their way through the dense model, a layer in memory
    at a time. Raises RequestFault if weights or hidden states are not finite, UnsupportedModel if a matrix's inputs
    are hidden.
    """
    passes = plan_passes(geometry, sequences)
    activations = Activations(stream, sequences, passes, scratch)
    found: dict[int, dict[Unit, Tensor]] = {}

    @contextmanager
    def scoring(layer: int, module: nn.Module) -> Iterator[None]:
        norms = _InputNorms()
        with watched_inputs(stream, module, norms.add):
            yield
        found[layer] = norms.scores(layer, module, geometry.kind(layer), weigh).totals

    activations.forward(keep=False, report=Steps(report, stream.layers * len(passes)), around=scoring)
    return named_scores(geometry, found)


class _InputNorms:
    """Sums of squares per input channel of each matrix of a layer, of each expert where there are several."""

    def __init__(self) -> None:
        self._squares: dict[tuple[str, int | None], Tensor] = {}

    def add(self, name: str, expert: int | None, x: Tensor) -> None:
        squares = torch.linalg.vector_norm(x.reshape(-1, x.shape[-1]), dim=0, dtype=torch.float32).square()
        self._squares[name, expert] = self._squares.get((name, expert), 0) + squares

    def scores(self, layer: int, module: nn.Module, kind: LayerKind, weigh: Weigh) -> UnitScores:
        scores = UnitScores(kind, layer)
        for name, spec in kind.parameters.items():
            if is_scored(spec):
                weight = module.get_parameter(name).detach()
                scores.add(name, spec, sums_along(weight, spec.axis, _by_rows(weigh, self._norms(name, weight))))
        return scores

    def _norms(self, name: str, weight: Tensor) -> Tensor:
        """`(in,)`, or `(experts, 1, in)` for a parameter that holds all experts; zeros for one that saw no token."""
        if weight.dim() == 2 and (name, None) in self._squares:
            return self._squares[name, None].sqrt()
        seen = {expert: squares for (of, expert), squares in self._squares.items() if of == name}
        if not seen:
            raise UnsupportedModel(
                f"what {name} is multiplied with cannot be seen in this family.", way_out="Use criterion taylor."
            )
        norms = weight.new_zeros(len(weight), 1, weight.shape[2], dtype=torch.float32)
        for expert, squares in seen.items():
            norms[expert, 0] = squares.sqrt()
        return norms


def _by_rows(weigh: Weigh, norms: Tensor) -> Callable[[slice, Tensor], Tensor]:
    return lambda rows, block: weigh(block, norms[rows] if norms.dim() == 3 else norms)
