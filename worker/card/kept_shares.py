"""How much pruning left, layer by layer."""

from __future__ import annotations

import re
from math import prod

from publisher.checkpoint.masks import Masks
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.manifest.manifest import Manifest

_UNITS = {"kv_heads": "attention heads", "neurons": "MLP neurons", "experts": "experts"}


def kept_shares(described: Manifest, masks: Masks | WeightMasks) -> dict[str, list[float]]:
    """Unit that lost something → share of it that is left in each layer; of single weights, of the pruned matrices."""
    if isinstance(masks, WeightMasks):
        return {"weights of pruned matrices": _of_weights(masks, len(described.widths))}
    shares = {}
    for unit, name in _UNITS.items():
        widths = zip(described.base_widths, described.widths, strict=True)
        pairs = [(getattr(base, unit), getattr(left, unit)) for base, left in widths]
        if any(base != left for base, left in pairs):
            shares[name] = [left / base if base else 1.0 for base, left in pairs]
    return shares


def _of_weights(masks: WeightMasks, layers: int) -> list[float]:
    """The first number in a weight's name is its layer's."""
    kept, full = [0] * layers, [0] * layers
    for weight in masks.weights:
        found = re.search(r"\.(\d+)\.", weight)
        if found is not None and int(found[1]) < layers:
            kept[int(found[1])] += masks.kept(weight)
            full[int(found[1])] += prod(masks.shape(weight))
    return [left / whole if whole else 1.0 for left, whole in zip(kept, full, strict=True)]
