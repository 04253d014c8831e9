"""GaLore as galore-torch has it, and with 8-bit moments: its projections around bitsandbytes' AdamW8bit.

Zhao et al.: "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection", arXiv 2403.03507. galore-torch
1.0 has an 8-bit optimizer, too, but for a bitsandbytes of its time, and on CUDA alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from bitsandbytes.optim import AdamW8bit
from galore_torch import GaLoreAdamW
from galore_torch.galore_projector import GaLoreProjector
from torch import Tensor
from torch.nn import Parameter

#: Steps between two SVDs, and what updates are multiplied by: the defaults of the authors and of transformers.
GAP, SCALE = 200, 0.25


def galore_adamw(params: list[Parameter], *, lr: float, rank: int, betas: tuple[float, float]) -> torch.optim.Optimizer:
    """The authors' own, with moments in fp32."""
    groups: list[dict[str, Any]] = [
        {"params": params, "rank": rank, "update_proj_gap": GAP, "scale": SCALE, "proj_type": "std"}
    ]
    made: torch.optim.Optimizer = GaLoreAdamW(groups, lr=lr, betas=betas, no_deprecation_warning=True)
    return made


class GaLoreAdamW8bit(AdamW8bit):  # type: ignore[misc]
    """W ← W - lr · scale · P Adam8(Pᵀ G). All parameters are matrices."""

    def __init__(
        self, params: Iterable[Parameter], *, lr: float, rank: int, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, weight_decay=0.0)
        self.rank = rank

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        for index, group in enumerate(self.param_groups):
            for position, weight in enumerate(group["params"]):
                if weight.grad is not None:
                    self._update(weight, group, index, position)
        return loss

    def _update(self, weight: Parameter, group: dict[str, Any], index: int, position: int) -> None:
        """bitsandbytes moves a parameter by its gradient: here one of zeros stands in for it, in the subspace."""
        state = self.state[weight]
        if "projector" not in state:
            state["projector"] = GaLoreProjector(self.rank, update_proj_gap=GAP, scale=SCALE)
        assert weight.grad is not None, "only parameters with a gradient are updated"
        projected = state["projector"].project(weight.grad, state.get("step", 0))
        update = self._moved(weight, projected, group, index, position)
        weight.add_(state["projector"].project_back(update))

    def _moved(self, weight: Parameter, projected: Tensor, group: dict[str, Any], index: int, position: int) -> Tensor:
        """Where a parameter of zeros goes with the gradient `projected`."""
        whole = weight.data
        weight.grad = None
        weight.data, weight.grad = torch.zeros_like(projected), projected
        try:
            if "state1" not in self.state[weight]:
                self.init_state(group, weight, index, position)
            self.update_step(group, weight, index, position)
            return weight.data
        finally:
            weight.grad = None
            weight.data = whole
