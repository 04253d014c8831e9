"""AdamW with moments in 8 bits: bitsandbytes'."""

from __future__ import annotations

from math import prod

from publisher.recipe.optimizers.spec import BETAS, Optimizer, OptimizerSpec
from publisher.recipe.optimizers.state import adam_moments_8bit

ADAMW_8BIT = OptimizerSpec(
    name=Optimizer.ADAMW_8BIT,
    words="with moments in 8 bits, by bitsandbytes",
    made_by="bitsandbytes.optim:AdamW8bit",
    options={"betas": BETAS, "weight_decay": 0.0},
    state_bytes=lambda shape, rank: adam_moments_8bit(prod(shape)),
)
