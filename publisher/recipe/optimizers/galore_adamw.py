"""GaLore (arXiv 2403.03507): Adam on gradients projected onto their leading directions."""

from __future__ import annotations

from publisher.recipe.optimizers.spec import BETAS, Optimizer, OptimizerSpec, Package, Shape
from publisher.recipe.optimizers.state import Projection, adam_moments

GALORE_TORCH = Package(module="galore_torch", pip="galore-torch")
PROJECTOR = {"GaLoreProjector": "galore_torch.galore_projector"}


def _state_bytes(shape: Shape, rank: int) -> float:
    projection = Projection(shape, rank)
    return projection.basis_bytes + adam_moments(projection.entries)


GALORE_ADAMW = OptimizerSpec(
    name=Optimizer.GALORE_ADAMW,
    words="matrices in a subspace of their gradients, by its authors' galore-torch",
    made_by="worker.alignment.optimizers.galore:galore_adamw",
    options={"betas": BETAS},
    state_bytes=_state_bytes,
    has_rank=True,
    beside=Optimizer.ADAMW,
    package=GALORE_TORCH,
    state_objects=PROJECTOR,
)
