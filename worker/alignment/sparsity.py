"""Training a model whose single weights were pruned: those that are gone stay zero.

Gradients of removed weights are set to zero before they are accumulated, so they do not count in the gradient's norm,
and Adam's moments stay zero for them. Optimizers that mix a matrix's entries (projections, Muon) move them all the
same: what they move is set back to zero after each step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from publisher.checkpoint.weight_masks import WeightMasks, unpack


def keep_removed_weights_zero(model: nn.Module, masks: WeightMasks, optimizer: Optimizer) -> None:
    """Register it for every weight that `masks` names and that is trained.

    Masks stay packed, one bit a weight, on the weight's device.
    """
    weights = dict(model.named_parameters())
    masked = [_Masked(weights[name], masks.packed(name)) for name in masks.weights if weights[name].requires_grad]

    def after_step(_optimizer: Optimizer, _arguments: tuple[Any, ...], _named: dict[str, Any]) -> None:
        for one in masked:
            one.zero_removed()

    optimizer.register_step_post_hook(after_step)


class _Masked:
    def __init__(self, weight: Tensor, packed: Tensor) -> None:
        self.weight, self.packed = weight, packed.to(weight.device)
        weight.register_hook(self._masked)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def zero_removed(self) -> None:
        self.weight.mul_(unpack(self.packed, self.weight.shape[1]))

    def _masked(self, gradient: Tensor) -> Tensor:
        return gradient * unpack(self.packed, self.weight.shape[1])
