"""Strength of a recovered adapter: what its update is multiplied by on the base model.

The pruned model's gradients are partly its own: of an adapter that learnt from them only a part moves the base model,
so on the base model it tends to be a little too short. One number mends some of that. It is chosen by forward passes
of the base model, on training text that the adapter was not trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor
from transformers import PreTrainedModel

from publisher.checkpoint.evaluation import TriedStrength
from publisher.checkpoint.strength import set_strength
from publisher.recipe import STRENGTHS
from worker.alignment.batch_loss import NextToken
from worker.alignment.held_out import mean_loss
from worker.head import head_of

#: (sequences measured)
Advance = Callable[[int], None]


def try_strengths(
    model: PreTrainedModel, sequences: Tensor, advance: Advance, check: Callable[[], None]
) -> list[TriedStrength]:
    """Loss of the base `model`, which has an adapter on it, over `sequences` (n, length) at each of STRENGTHS.

    Where it is no number it is left out. The adapter is left at the last of them. `check` is called before each part of
    `sequences` and may raise.
    """
    objective, tried = NextToken(head_of(model)), []
    for strength in STRENGTHS:
        set_strength(model, strength)
        loss = mean_loss(model, objective, sequences, check)
        if math.isfinite(loss):
            tried.append(TriedStrength(strength=strength, loss=loss))
        advance(len(sequences))
    return tried
