"""Muon: momentum made orthogonal."""

from __future__ import annotations

from math import prod

from publisher.recipe.optimizers.spec import Optimizer, OptimizerSpec
from publisher.recipe.optimizers.state import FP32

MUON = OptimizerSpec(
    name=Optimizer.MUON,
    words="matrices by orthogonal momentum, by torch",
    made_by="torch.optim:Muon",
    # updates as large as AdamW's (arXiv 2502.16982), so that one learning rate fits both
    options={"weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"},
    state_bytes=lambda shape, rank: prod(shape) * FP32,
    beside=Optimizer.ADAMW,
)
