"""How much each KV head, neuron and expert matters: `{importance_key: (units,)}` for all units of all layers.

- random: uniform, the same for the same seed;
- magnitude: L2 norm of all weights that the unit owns;
- wanda: |weight| × norm of what it is multiplied with, summed over all weights that the unit owns (the structured sum
  of Wanda's score, arXiv 2306.11695);
- taylor is in worker.pruning.taylor.

Criteria's declarations (publisher/recipe/criteria) name the functions that take a ScoringWork.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from publisher.architecture.geometry import Geometry
from publisher.architecture.structure import Unit
from publisher.errors import RequestFault
from worker.pruning.scores import UnitScores, scored_tensors
from worker.pruning.scoring import ScoringWork
from worker.pruning.selection import importance_key, named_scores


def score_by_chance(work: ScoringWork) -> dict[str, Tensor]:
    return random_importance(work.geometry, work.seed)


def score_by_magnitude(work: ScoringWork) -> dict[str, Tensor]:
    return magnitude_importance(work.geometry, work.squares())


def score_by_wanda(work: ScoringWork) -> dict[str, Tensor]:
    return work.sums_by_inputs(weigh_by_norms)


def weigh_by_norms(weights: Tensor, norms: Tensor) -> Tensor:
    """Wanda's score of each weight, in its place."""
    return weights.abs_().mul_(norms)


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
    return named_scores(geometry, {layer: _roots(scores.totals) for layer, scores in enumerate(layers)})


def _roots(totals: dict[Unit, Tensor]) -> dict[Unit, Tensor]:
    return {unit: total.sqrt() for unit, total in totals.items()}


def _generator(seed: int, key: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
