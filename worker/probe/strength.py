"""Strength of a recovered adapter: what its update is multiplied by on the base model.

The pruned model's gradients are partly its own: of an adapter that learnt from them only a part moves the base model,
so on the base model it tends to be a little too short. One number mends some of that. It is chosen by forward passes
of the base model, on training text that the adapter was not trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from publisher.checkpoint.strength import set_strength
from publisher.manifest.evaluation import TriedStrength
from publisher.recipe import STRENGTHS
from worker.models.head import head_of
from worker.training.batch_loss import NextToken
from worker.training.held_out import mean_loss

#: (sequences measured)
Advance = Callable[[int], None]


def try_strengths(
    model: PreTrainedModel, sequences: Tensor, advance: Advance, check: Callable[[], None]
) -> list[TriedStrength]:
    """Loss of the base `model`, which has an adapter on it, over `sequences` (n, length) at each of STRENGTHS.

    Where it is no number it is left out. The adapter is left at the last of them. `check` is called before each part of
    `sequences` and may raise.
    """
    objective, losses = NextToken(head_of(model)), {}
    for strength in STRENGTHS:
        set_strength(model, strength)
        found = torch.tensor([mean_loss(model, objective, row[None], check) for row in sequences], dtype=torch.float64)
        if found.isfinite().all():
            losses[strength] = found
        advance(len(sequences))
    if not losses:
        return []
    best = min(losses.values(), key=lambda found: float(found.mean()))
    return [
        TriedStrength(strength=strength, loss=float(found.mean()), error=_standard_error(found - best))
        for strength, found in losses.items()
    ]


def _standard_error(differences: Tensor) -> float:
    """Of their mean; one alone does not tell, so 0."""
    count = len(differences)
    return float(differences.std()) / math.sqrt(count) if count > 1 else 0.0
