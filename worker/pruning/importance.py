"""How much each KV head, neuron and expert matters: `{importance_key: (units,)}` for all units of all layers.

- random: uniform, the same for the same seed;
- magnitude: L2 norm of all weights that the unit owns;
- wanda: |weight| × norm of what it is multiplied with, summed over all weights that the unit owns (the structured sum
  of Wanda's score, arXiv 2306.11695);
- taylor is in worker.pruning.taylor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from publisher.architecture.geometry import Geometry
from publisher.architecture.structure import LayerKind, TensorSpec, Unit
from publisher.errors import RequestFault, UnsupportedModel
from worker.pruning.activations import Activations, Report, Steps, plan_passes
from worker.pruning.scores import UnitScores, is_scored, sums_along
from worker.pruning.selection import importance_key
from worker.streaming.model import LayerStream
from worker.streaming.products import watched_inputs


def random_importance(geometry: Geometry, seed: int) -> dict[str, Tensor]:
    """Uniform in [0, 1). Every layer's unit has a stream of its own, so one layer does not depend on another."""
    scores = {}
    for layer in range(geometry.layers):
        for unit, count in geometry.kind(layer).units.items():
            key = importance_key(geometry, layer, unit)
            scores[key] = torch.rand(count, generator=_generator(seed, key))
    return scores


def magnitude_importance(geometry: Geometry, squares: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """`squares` are (name in files, sums of squares along the axis that is cut) of `scored_tensors`, in any order.

    Raises RequestFault if one is missing or not finite.
    """
    layers = [UnitScores(geometry.kind(layer), layer) for layer in range(geometry.layers)]
    places = scored_tensors(geometry)
    for name, sums in squares:
        layer, spec = places.pop(name)
        layers[layer].add(name, spec, sums)
    if places:
        raise RequestFault(f"the base model's files hold no tensor {min(places)}.", way_out="Register it again.")
    return _named(geometry, {layer: _roots(scores.totals) for layer, scores in enumerate(layers)})


def scored_tensors(geometry: Geometry) -> dict[str, tuple[int, TensorSpec]]:
    """Name in files → (layer, spec) of every tensor that magnitude looks at."""
    return {
        f"{geometry.layer_prefix}{layer}.{name}": (layer, spec)
        for layer in range(geometry.layers)
        for name, spec in geometry.kind(layer).tensors.items()
        if is_scored(spec)
    }


def wanda_importance(
    stream: LayerStream, geometry: Geometry, sequences: Tensor, *, scratch: Path, report: Report
) -> dict[str, Tensor]:
    """From `sequences` `(samples, length)` int64 on their way through the dense model, a layer in memory at a time.

    Raises RequestFault if weights or hidden states are not finite, UnsupportedModel if a matrix's inputs are hidden.
    """
    passes = plan_passes(geometry, sequences)
    activations = Activations(stream, sequences, passes, scratch)
    found: dict[int, dict[Unit, Tensor]] = {}

    @contextmanager
    def scoring(layer: int, module: nn.Module) -> Iterator[None]:
        norms = _InputNorms()
        with watched_inputs(stream, module, norms.add):
            yield
        found[layer] = norms.scores(layer, module, geometry.kind(layer)).totals

    activations.forward(keep=False, report=Steps(report, stream.layers * len(passes)), around=scoring)
    return _named(geometry, found)


class _InputNorms:
    """Sums of squares per input channel of each matrix of a layer, of each expert where there are several."""

    def __init__(self) -> None:
        self._squares: dict[tuple[str, int | None], Tensor] = {}

    def add(self, name: str, expert: int | None, x: Tensor) -> None:
        squares = torch.linalg.vector_norm(x.reshape(-1, x.shape[-1]), dim=0, dtype=torch.float32).square()
        self._squares[name, expert] = self._squares.get((name, expert), 0) + squares

    def scores(self, layer: int, module: nn.Module, kind: LayerKind) -> UnitScores:
        scores = UnitScores(kind, layer)
        for name, spec in kind.parameters.items():
            if is_scored(spec):
                weight = module.get_parameter(name).detach()
                weigh = partial(_weighted, self._norms(name, weight))
                scores.add(name, spec, sums_along(weight, spec.axis, weigh))
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


def _weighted(norms: Tensor, rows: slice, block: Tensor) -> Tensor:
    return block.abs_().mul_(norms[rows] if norms.dim() == 3 else norms)


def _roots(totals: dict[Unit, Tensor]) -> dict[Unit, Tensor]:
    return {unit: total.sqrt() for unit, total in totals.items()}


def _named(geometry: Geometry, found: dict[int, dict[Unit, Tensor]]) -> dict[str, Tensor]:
    return {
        importance_key(geometry, layer, unit): scores
        for layer, units in found.items()
        for unit, scores in units.items()
    }


def _generator(seed: int, key: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
