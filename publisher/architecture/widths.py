"""How wide each layer is after structured pruning: counts that follow from sizes and recipe alone. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil, gcd

from publisher.architecture.geometry import Geometry, LayerWidths
from publisher.architecture.structure import Unit
from publisher.errors import RequestFault
from publisher.recipe.pruning import Layout, Pruning, Scope


def pruned_widths(geometry: Geometry, pruning: Pruning) -> tuple[LayerWidths, ...]:
    """Widths of every layer after pruning, by the rule of the paper's tables (DESIGN section 2).

    Keeps `int(neurons * (1 - ratio))` neurons and removes `(C - int(C * (1 - ratio))) // head_dim` KV heads,
    `C = kv_heads * head_dim`, in each layer that is not protected; of experts `int(experts * (1 - ratio))`, but no
    fewer than work on one token. With scope global these are the widths on average: layers will differ, totals will
    not. With scope joint they say how many parameters stay, to within a unit; of what they are made is decided by
    importance. Methods that are not structured keep every shape. Raises RequestFault for a ratio that leaves nothing of
    a layer or takes nothing, and for a layout that the ratio cannot have.
    """
    layers = unprotected_layers(geometry, pruning)
    if not pruning.method.removes_units:
        return geometry.full_widths
    kept = {kind: geometry.widths_of(kept_units_per_layer(geometry, kind, pruning)) for kind in geometry.kind_of}
    widths = tuple(
        kept[geometry.kind_of[layer]] if layer in layers else full for layer, full in enumerate(geometry.full_widths)
    )
    if widths == geometry.full_widths:
        raise _takes_nothing(geometry, pruning)
    return widths


def unprotected_layers(geometry: Geometry, pruning: Pruning) -> range:
    """The layers that are pruned; RequestFault if there are none."""
    protected = pruning.protect_first + pruning.protect_last
    if protected >= geometry.layers:
        raise RequestFault(
            f"protect_first {pruning.protect_first} + protect_last {pruning.protect_last} leave none of the "
            f"{geometry.layers} decoder layers to prune.",
            field="recipe.pruning.protect_first",
            way_out=f"Protect at most {geometry.layers - 1} layers in total.",
        )
    return range(pruning.protect_first, geometry.layers - pruning.protect_last)


def kept_units_per_layer(geometry: Geometry, kind: int, pruning: Pruning) -> dict[Unit, int]:
    """What an unprotected layer of `geometry.kinds[kind]` keeps (on average, with scope global)."""
    kept = {}
    for unit, units in geometry.kinds[kind].units.items():
        count = _rounded_up(_by_ratio(geometry, unit, units, pruning.ratio), step(geometry, unit, pruning), units)
        if unit is Unit.KV_HEADS and pruning.layout is Layout.UNIFORM:
            count = _divides_hidden_size(geometry, pruning, count)
        if count < 1:
            raise _leaves_nothing(unit, units, pruning)
        kept[unit] = count
    return kept


def step(geometry: Geometry, unit: Unit, pruning: Pruning) -> int:
    """Kept units come in multiples of this, by `round_to`: neurons, or KV heads whose key channels are a multiple."""
    match unit:
        case Unit.NEURONS:
            return pruning.round_to
        case Unit.KV_HEADS:
            return pruning.round_to // gcd(pruning.round_to, geometry.head_dim)
        case Unit.EXPERTS:
            return 1


def width_notes(geometry: Geometry, pruning: Pruning) -> list[str]:
    """What the widths alone do not tell."""
    if not pruning.method.removes_units:
        return []
    notes = [f"{_PLURAL[unit]} stay: {reason}" for unit, reason in geometry.whole.items()]
    if pruning.scope is Scope.GLOBAL:
        notes.append("scope global: layers will differ in width; these are their averages, and totals will be equal")
    if pruning.scope is Scope.JOINT:
        notes.append(
            "scope joint: layers will differ in width, and heads may stay in place of neurons or the other way round; "
            "parameters and bytes will be these, to within one head or neuron more"
        )
    pruned = {geometry.kind_of[layer] for layer in unprotected_layers(geometry, pruning)}
    for kind in sorted(pruned):
        kept = kept_units_per_layer(geometry, kind, pruning)
        notes += [note for unit, count in kept.items() for note in _deviations(geometry, kind, pruning, unit, count)]
    return list(dict.fromkeys(notes))


def _by_ratio(geometry: Geometry, unit: Unit, units: int, ratio: float) -> int:
    match unit:
        case Unit.NEURONS:
            return int(units * (1 - ratio))
        case Unit.KV_HEADS:
            channels = units * geometry.head_dim
            return units - (channels - int(channels * (1 - ratio))) // geometry.head_dim
        case Unit.EXPERTS:
            return max(int(units * (1 - ratio)), geometry.experts_per_token)


def _rounded_up(count: int, step: int, most: int) -> int:
    return min(ceil(count / step) * step, most)


def _divides_hidden_size(geometry: Geometry, pruning: Pruning, wanted: int) -> int:
    """The count nearest to `wanted` that configs take; of two as near the larger."""
    if config_takes_heads(geometry, wanted):
        return wanted
    full, multiple = geometry.kv_heads, step(geometry, Unit.KV_HEADS, pruning)
    fewer = [count for count in range(multiple, full, multiple) if config_takes_heads(geometry, count)]
    best = min([*fewer, full], key=lambda count: (abs(count - wanted), -count))
    if best == full:
        ratios = "; ".join(f"{_ratio_for(geometry, count)} ({_named(count, Unit.KV_HEADS)})" for count in fewer[::-1])
        raise RequestFault(
            f"layout uniform: ratio {pruning.ratio} would leave {wanted} of {full} KV heads, whose query heads do not "
            f"divide hidden_size {geometry.hidden_size}, and the nearest count that does is all of them.",
            field="recipe.pruning.ratio",
            way_out=f"Ratios that would do: {ratios}." if ratios else "Leave layout out, or lower round_to.",
        )
    return best


def config_takes_heads(geometry: Geometry, kv_heads: int) -> bool:
    """Whether the family's own config can say that all layers have so many KV heads (0: they cannot be removed).

    Configs ask for query heads that divide the hidden size, but for those of families whose own models break that.
    """
    hidden, group = geometry.hidden_size, geometry.group_size
    asks = hidden % (geometry.kv_heads * group) == 0
    return kv_heads in (0, geometry.kv_heads) or not asks or hidden % (kv_heads * group) == 0


def _ratio_for(geometry: Geometry, kv_heads: int) -> float:
    """The smallest ratio of three decimals that leaves `kv_heads`."""
    return ceil((1 - kv_heads / geometry.kv_heads) * 1000) / 1000


def _deviations(geometry: Geometry, kind: int, pruning: Pruning, unit: Unit, count: int) -> Iterator[str]:
    units, multiple = geometry.kinds[kind].units[unit], step(geometry, unit, pruning)
    asked = _by_ratio(geometry, unit, units, pruning.ratio)
    if count % multiple:
        yield (
            f"round_to {pruning.round_to}: pruned layers keep all {_named(units, unit)}, which are no multiple of "
            f"{multiple} in the base model either"
        )
    elif unit is Unit.EXPERTS and asked > int(units * (1 - pruning.ratio)):
        yield f"pruned layers keep {_named(count, unit)}, as many as work on one token"
    elif unit is Unit.KV_HEADS and pruning.layout is Layout.UNIFORM and count != asked:
        yield (
            f"layout uniform: {_named(count, unit)} instead of the {asked} that ratio {pruning.ratio} asks for, since "
            f"query heads have to divide hidden_size {geometry.hidden_size}"
        )


def _leaves_nothing(unit: Unit, units: int, pruning: Pruning) -> RequestFault:
    return RequestFault(
        f"ratio {pruning.ratio} leaves no {_SINGULAR[unit]} in a layer of {_named(units, unit)}.",
        field="recipe.pruning.ratio",
        way_out="Choose a smaller ratio.",
    )


def _takes_nothing(geometry: Geometry, pruning: Pruning) -> RequestFault:
    units = geometry.kind(pruning.protect_first).units
    held = " and ".join(_named(count, unit) for unit, count in units.items()) or "nothing that can be removed"
    if pruning.round_to > 1:
        return RequestFault(
            f"round_to {pruning.round_to} rounds everything up to the full width of layers of {held}.",
            field="recipe.pruning.round_to",
            way_out="Choose a smaller round_to or a larger ratio.",
        )
    return RequestFault(
        f"ratio {pruning.ratio} removes nothing from layers of {held}.",
        field="recipe.pruning.ratio",
        way_out="Choose a larger ratio, or protect fewer layers.",
    )


_SINGULAR: Mapping[Unit, str] = {Unit.KV_HEADS: "attention head", Unit.NEURONS: "neuron", Unit.EXPERTS: "expert"}
_PLURAL: Mapping[Unit, str] = {Unit.KV_HEADS: "KV heads", Unit.NEURONS: "neurons", Unit.EXPERTS: "experts"}


def _named(count: int, unit: Unit) -> str:
    return f"{count:,} {_PLURAL[unit].removesuffix('s') if count == 1 else _PLURAL[unit]}"
