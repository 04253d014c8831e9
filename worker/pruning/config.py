"""config.json of a pruned model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from publisher.architecture import Geometry, LayerWidths


def pruned_config(config: Mapping[str, Any], geometry: Geometry, widths: Sequence[LayerWidths]) -> dict[str, Any]:
    """The base model's raw config with the widths of each layer.

    Layers of one width become the global values, so that stock transformers loads the model; it insists that the
    head count divides the hidden size, so other counts are written per layer (publisher.checkpoint loads those).
    `head_dim` is written out: hidden_size / heads does not give it any more.
    """
    sized = dict(config) | {"head_dim": geometry.head_dim, "num_key_value_heads": geometry.kv_heads}
    if len(set(widths)) == 1 and geometry.hidden_size % widths[0].query_heads == 0:
        return sized | _fields(widths[0])
    digits = len(str(geometry.layers - 1))
    narrower = {
        str(layer).zfill(digits): _fields(width) for layer, width in enumerate(widths) if width != geometry.full_width
    }
    return sized | {"per_layer_config": narrower}


def _fields(width: LayerWidths) -> dict[str, int]:
    return {
        "num_attention_heads": width.query_heads,
        "num_key_value_heads": width.kv_heads,
        "intermediate_size": width.neurons,
    }
