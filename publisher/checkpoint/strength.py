"""Strength of an adapter: what its update is multiplied by on the base model, beyond what it was trained with."""

from __future__ import annotations

from peft.tuners.lora import LoraLayer
from torch import nn


def set_strength(model: nn.Module, strength: float) -> None:
    """Have the active adapters on `model` add `strength` times the update that they were trained to.

    However often it is called. `publisher recover` writes the same into the adapter it makes; this is for adapters that
    are used as they were trained, with masks (publisher.checkpoint.masked).
    """
    for module in model.modules():
        if isinstance(module, LoraLayer):
            for adapter in module.active_adapters:
                module.set_scale(adapter, strength)
