"""How many heads, neurons and experts a layer has by the manifest and by config.json, which have words of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from publisher.architecture.structure import Unit
from publisher.errors import RequestFault
from publisher.manifest.manifest import Manifest, Widths

#: What families call the number of a layer's units. A name that is not here is not compared.
COUNTED: Mapping[str, Unit] = {
    "num_key_value_heads": Unit.KV_HEADS,
    "intermediate_size": Unit.NEURONS,
    "num_experts": Unit.EXPERTS,
    "num_local_experts": Unit.EXPERTS,
    "n_routed_experts": Unit.EXPERTS,
}
_WORDS = {Unit.KV_HEADS: "attention heads", Unit.NEURONS: "MLP neurons", Unit.EXPERTS: "experts"}


def stated(widths: Widths, unit: Unit) -> int:
    return {Unit.KV_HEADS: widths.kv_heads, Unit.NEURONS: widths.neurons, Unit.EXPERTS: widths.experts}[unit]


def of_config(
    config: Mapping[str, Any], layer: int, units: Mapping[Unit, int], *, several_kinds: bool
) -> dict[str, Any]:
    """What config.json says of the `units` of a layer, by its own names.

    Without values by layer all layers have the global ones, which in a model of several kinds of layers may mean
    something else: then nothing is compared. Raises RequestFault where per_layer_config is no such values.
    """
    by_layer = config.get("per_layer_config")
    if not by_layer and several_kinds:
        return {}
    own = _by_layer(by_layer or {}).get(layer, {})
    values = own if several_kinds else dict(config) | own
    return {name: values[name] for name, unit in COUNTED.items() if name in values and unit in units}


def _by_layer(stated: Any) -> dict[int, dict[str, Any]]:
    try:
        return {int(key): dict(values) for key, values in stated.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise RequestFault(
            "per_layer_config in config.json is not an object of layers' numbers and values.",
            way_out="Download the checkpoint again.",
        ) from error


def kept_shares(manifest: Manifest) -> dict[str, list[float]]:
    """Of the units that some layer lost."""
    shares = {}
    for unit, words in _WORDS.items():
        widths = zip(manifest.base_widths, manifest.widths, strict=True)
        pairs = [(stated(base, unit), stated(left, unit)) for base, left in widths]
        if any(base != left for base, left in pairs):
            shares[words] = [left / base if base else 1.0 for base, left in pairs]
    return shares
