"""GradNormLoRP (arXiv 2412.19616): weights as lengths and directions, and projections on both sides. Written here."""

from __future__ import annotations

from publisher.recipe.optimizers.spec import BETAS, Optimizer, OptimizerSpec, Shape
from publisher.recipe.optimizers.state import FP32, Projection, adam_moments


def _state_bytes(shape: Shape, rank: int) -> float:
    """Bases of both sides, moments between them; of each row its length and that length's moments."""
    projection = Projection(shape, rank)
    bases = projection.basis_bytes + projection.entries * FP32
    return bases + adam_moments(projection.rank**2) + 3 * shape[0] * FP32


GRADNORMLORP = OptimizerSpec(
    name=Optimizer.GRADNORMLORP,
    words="matrices' rows as lengths and directions, whose gradients are projected on both sides",
    made_by="worker.alignment.optimizers.gradnormlorp:GradNormLoRP",
    options={"betas": BETAS},
    state_bytes=_state_bytes,
    has_rank=True,
    beside=Optimizer.ADAMW,
)
