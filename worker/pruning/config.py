"""config.json of a pruned model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from publisher.architecture import Geometry, LayerWidths
from publisher.architecture.structure import Unit


def pruned_config(config: Mapping[str, Any], geometry: Geometry, widths: Sequence[LayerWidths]) -> dict[str, Any]:
    """The base model's raw config with the widths of each layer, as transformers' `per_layer_config`.

    Layers of one width become the global values, so that stock transformers loads the model; families insist that
    the head count divides the hidden size, so other counts are written per layer (publisher.checkpoint loads those).
    `head_dim` is written out: hidden_size / heads does not give it any more.
    """
    sized = dict(config) | {"head_dim": geometry.head_dim}
    sized |= {geometry.fields["kv_heads"]: geometry.kv_heads} if "kv_heads" in geometry.fields else {}
    if len(set(widths)) == 1 and _stock_heads(geometry, widths[0]):
        return sized | _fields(geometry, 0, widths[0])
    digits = len(str(geometry.layers - 1))
    narrower = {
        str(layer).zfill(digits): _fields(geometry, layer, width)
        for layer, width in enumerate(widths)
        if width != geometry.full_widths[layer]
    }
    return sized | ({"per_layer_config": narrower} if narrower else {})


def _stock_heads(geometry: Geometry, width: LayerWidths) -> bool:
    return width.query_heads > 0 and geometry.hidden_size % width.query_heads == 0


def _fields(geometry: Geometry, layer: int, width: LayerWidths) -> dict[str, int]:
    """What the layer's config says of the units that it has."""
    units = geometry.kind(layer).units
    wanted = {"neurons": Unit.NEURONS, "experts": Unit.EXPERTS, "query_heads": Unit.KV_HEADS, "kv_heads": Unit.KV_HEADS}
    return {
        geometry.fields[name]: getattr(width, name)
        for name, unit in wanted.items()
        if unit in units and name in geometry.fields
    }
