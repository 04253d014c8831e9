"""Adafactor (arXiv 1804.04235): second moments as a row and a column."""

from __future__ import annotations

from math import prod

from publisher.recipe.optimizers.spec import Optimizer, OptimizerSpec
from publisher.recipe.optimizers.state import FP32

ADAFACTOR = OptimizerSpec(
    name=Optimizer.ADAFACTOR,
    words="second moments as a row and a column, by torch; its rate is relative to each tensor's root mean square, as "
    "in its paper: 10 to 100 times adamw's",
    made_by="torch.optim:Adafactor",
    options={"weight_decay": 0.0},
    state_bytes=lambda shape, rank: (sum(shape) if len(shape) > 1 else prod(shape)) * FP32,
)
