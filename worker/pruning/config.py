"""config.json of a pruned model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from publisher.architecture.geometry import Geometry, LayerWidths
from publisher.architecture.structure import Unit
from publisher.architecture.widths import config_takes_heads
from publisher.errors import UnsupportedModel
from publisher.families.describe import describe
from publisher.loading.notice import PER_LAYER


def pruned_config(config: Mapping[str, Any], geometry: Geometry, widths: Sequence[LayerWidths]) -> dict[str, Any]:
    """The base model's raw config with the widths of each layer, as transformers' `per_layer_config`.

    Where all layers of a kind have one width, that becomes the global values, so that stock transformers loads the
    model, if the family's config can say it so; else it is written per layer (publisher.checkpoint loads that).
    `head_dim` is written out: hidden_size / heads does not give it any more.
    """
    sized = dict(config) | {"head_dim": geometry.head_dim}
    sized |= {geometry.fields["kv_heads"]: geometry.kv_heads} if "kv_heads" in geometry.fields else {}
    stock = sized | _one_width(geometry, widths)
    if _means(stock, geometry, widths):
        return stock
    digits = len(str(geometry.layers - 1))
    narrower = {
        str(layer).zfill(digits): _fields(geometry, layer, width)
        for layer, width in enumerate(widths)
        if width != geometry.full_widths[layer]
    }
    return sized | ({PER_LAYER: narrower} if narrower else {})


def _one_width(geometry: Geometry, widths: Sequence[LayerWidths]) -> dict[str, int]:
    """Global values, by the first layer of each kind."""
    firsts = [geometry.kind_of.index(kind) for kind in range(len(geometry.kinds))]
    return {name: value for layer in firsts for name, value in _fields(geometry, layer, widths[layer]).items()}


def _means(stock: Mapping[str, Any], geometry: Geometry, widths: Sequence[LayerWidths]) -> bool:
    """Whether the global values alone give layers of these widths."""
    if len(set(zip(geometry.kind_of, widths, strict=True))) > len(geometry.kinds):
        return False
    if not all(config_takes_heads(geometry, width.kv_heads) for width in widths):
        return False
    if len(geometry.kinds) == 1:
        return True
    try:  # another kind of layer may read the same value for something that was not cut
        return describe(stock).tensor_shapes() == geometry.tensor_shapes(widths)
    except UnsupportedModel:
        return False


def _fields(geometry: Geometry, layer: int, width: LayerWidths) -> dict[str, int]:
    """What the layer's config says of the units that it has."""
    units = geometry.kind(layer).units
    wanted = {"neurons": Unit.NEURONS, "experts": Unit.EXPERTS, "query_heads": Unit.KV_HEADS, "kv_heads": Unit.KV_HEADS}
    return {
        geometry.fields[name]: getattr(width, name)
        for name, unit in wanted.items()
        if unit in units and name in geometry.fields
    }
