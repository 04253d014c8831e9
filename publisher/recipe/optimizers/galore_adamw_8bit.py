"""GaLore with moments in 8 bits."""

from __future__ import annotations

from publisher.recipe.optimizers.galore_adamw import GALORE_TORCH, PROJECTOR
from publisher.recipe.optimizers.spec import BETAS, Optimizer, OptimizerSpec, Shape
from publisher.recipe.optimizers.state import Projection, adam_moments_8bit


def _state_bytes(shape: Shape, rank: int) -> float:
    projection = Projection(shape, rank)
    return projection.basis_bytes + adam_moments_8bit(projection.entries)


GALORE_ADAMW_8BIT = OptimizerSpec(
    name=Optimizer.GALORE_ADAMW_8BIT,
    words="galore_adamw's projections around adamw_8bit",
    made_by="worker.alignment.optimizers.galore:GaLoreAdamW8bit",
    options={"betas": BETAS},
    state_bytes=_state_bytes,
    has_rank=True,
    beside=Optimizer.ADAMW_8BIT,
    package=GALORE_TORCH,
    state_objects=PROJECTOR,
)
