"""Lotus (arXiv 2602.01233): GaLore whose subspace comes from a randomized SVD and is left when it is used up.

Written here from its paper.
"""

from __future__ import annotations

from publisher.recipe.optimizers.spec import BETAS, Optimizer, OptimizerSpec, Shape
from publisher.recipe.optimizers.state import FP32, Projection, adam_moments


def _state_bytes(shape: Shape, rank: int) -> float:
    """GaLore's, and the subspace's first gradient."""
    projection = Projection(shape, rank)
    return projection.basis_bytes + adam_moments(projection.entries) + projection.entries * FP32


LOTUS = OptimizerSpec(
    name=Optimizer.LOTUS,
    words="matrices in a subspace that is left when the gradient stops moving in it",
    made_by="worker.alignment.optimizers.lotus:Lotus",
    options={"betas": BETAS},
    state_bytes=_state_bytes,
    has_rank=True,
    beside=Optimizer.ADAMW,
)
