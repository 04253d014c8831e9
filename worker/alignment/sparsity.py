"""Training a model whose single weights were pruned: those that are gone stay zero.

Gradients of removed weights are set to zero before they are accumulated. Then Adam's moments stay zero for them,
too, and an update of exactly zero leaves a weight of zero where it is; they do not count in the gradient's norm.
"""

from __future__ import annotations

from torch import Tensor, nn

from publisher.checkpoint.weight_masks import WeightMasks, unpack


def keep_removed_weights_zero(model: nn.Module, masks: WeightMasks) -> None:
    """Register it for every weight that `masks` names; masks stay packed, one bit a weight, on the weight's device."""
    weights = dict(model.named_parameters())
    for name in masks.weights:
        weight = weights[name]
        weight.register_hook(_Masked(masks.packed(name).to(weight.device), weight.shape[1]))  # type: ignore[no-untyped-call]


class _Masked:
    def __init__(self, packed: Tensor, columns: int) -> None:
        self.packed, self.columns = packed, columns

    def __call__(self, gradient: Tensor) -> Tensor:
        return gradient * unpack(self.packed, self.columns)
