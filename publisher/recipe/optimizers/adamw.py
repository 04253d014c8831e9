"""AdamW, the paper's optimizer: torch's, in one kernel."""

from __future__ import annotations

from math import prod

from publisher.recipe.optimizers.spec import BETAS, Optimizer, OptimizerSpec
from publisher.recipe.optimizers.state import adam_moments

ADAMW = OptimizerSpec(
    name=Optimizer.ADAMW,
    words="the paper's, by torch",
    made_by="torch.optim:AdamW",
    options={"betas": BETAS, "weight_decay": 0.0, "fused": True},
    state_bytes=lambda shape, rank: adam_moments(prod(shape)),
    several_devices=True,
)
