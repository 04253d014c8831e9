"""A realised change (realised.py) as changes of the base model's weights: put back at kept rows and columns."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from publisher.architecture.structure import Shape
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.changes import Changes, Together
from publisher.checkpoint.recovery.merging import merged_weight
from publisher.checkpoint.recovery.method import Change
from publisher.checkpoint.recovery.naming import PEFT_PREFIX
from publisher.checkpoint.recovery.scatter import put_back


def as_changes(adapter: Adapter, masks: PruningMasks, together: Together) -> Iterator[Change]:
    """Of every adapted module's weight, and of its bias. Each is computed when its weight is written."""
    from publisher.checkpoint.recovery.realised import RealisedChanges  # which asks PEFT

    realised = RealisedChanges(adapter, masks, together)
    for module, target in realised.targets.items():
        weight = f"{module}.weight"
        merged = partial(_with_weight, realised, module, masks)
        yield Change(f"{PEFT_PREFIX}{weight}", weight, _full(weight, target.shape, masks), merged)
        if target.biased:
            bias = f"{module}.bias"
            merged = partial(_with_bias, realised, module, masks)
            yield Change(f"{PEFT_PREFIX}{bias}", bias, _full(bias, target.shape[:1], masks), merged)


def scattered(name: str, change: Tensor, masks: PruningMasks) -> Tensor:
    """A change of the checkpoint's parameter `name` in the base model's shape, zero where something was removed."""
    found = masks.parameter(name)
    cut = None if found is None else found.cut
    return change if cut is None else put_back(change, cut[1], cut[0])


def _full(name: str, shape: Shape, masks: PruningMasks) -> Shape:
    found = masks.parameter(name)
    return shape if found is None else found.full


def _with_weight(realised: Changes, module: str, masks: PruningMasks, weight: Tensor) -> Tensor:
    name = f"{module}.weight"
    return merged_weight(weight, scattered(name, realised.of(module).weight, masks), masks.mask_of(name))


def _with_bias(realised: Changes, module: str, masks: PruningMasks, bias: Tensor) -> Tensor:
    change = realised.of(module).bias
    return bias if change is None else merged_weight(bias, scattered(f"{module}.bias", change, masks), None)
