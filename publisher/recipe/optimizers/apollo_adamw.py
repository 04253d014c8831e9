"""APOLLO (arXiv 2412.05270): gradients scaled per channel as Adam on a random projection of them would.

Written here from its paper: the authors' package may not be used commercially.
"""

from __future__ import annotations

from publisher.recipe.optimizers.spec import BETAS, Optimizer, OptimizerSpec
from publisher.recipe.optimizers.state import Projection, adam_moments

APOLLO_ADAMW = OptimizerSpec(
    name=Optimizer.APOLLO_ADAMW,
    words="matrices' gradients scaled by channel as Adam on a random projection would (APOLLO)",
    made_by="worker.alignment.optimizers.apollo:Apollo",
    options={"betas": BETAS},
    # its basis is drawn again from a seed
    state_bytes=lambda shape, rank: adam_moments(Projection(shape, rank).entries),
    has_rank=True,
    beside=Optimizer.ADAMW,
)
