"""A model's structure (publisher.architecture.structure) as compact JSON: what a masks file carries in its metadata.

`{"prefix": "model.layers.", "kind_of": [0, 0, 1], "kinds": [{"units": {"neurons": 20}, "parameters": {name: spec}}]}`,
a spec being `[shape, axis, [[unit, offset, span], …]]`, or `[shape]` of a tensor that is never cut. The names are
those of transformers' modules, which adapters use.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from publisher.architecture.structure import LayerKind, Part, TensorSpec, Unit


def to_json(kinds: Sequence[LayerKind], kind_of: Sequence[int], prefix: str) -> str:
    """Equal structures give equal text."""
    content = {"prefix": prefix, "kind_of": list(kind_of), "kinds": [_plain_kind(kind) for kind in kinds]}
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> tuple[tuple[LayerKind, ...], tuple[int, ...], str]:
    """Kinds, the kind of each layer, and the prefix; raises ValueError, KeyError or TypeError for other JSON."""
    content = json.loads(text)
    kinds = tuple(_kind(plain) for plain in content["kinds"])
    return kinds, tuple(int(kind) for kind in content["kind_of"]), str(content["prefix"])


def _plain_kind(kind: LayerKind) -> dict[str, Any]:
    return {
        "units": {str(unit): count for unit, count in kind.units.items()},
        "parameters": {name: _plain_spec(spec) for name, spec in kind.parameters.items()},
    }


def _plain_spec(spec: TensorSpec) -> list[Any]:
    if not spec.parts:
        return [list(spec.shape)]
    return [list(spec.shape), spec.axis, [[str(part.unit), part.offset, part.span] for part in spec.parts]]


def _kind(plain: dict[str, Any]) -> LayerKind:
    units = {Unit(unit): int(count) for unit, count in plain["units"].items()}
    return LayerKind(units, {name: _spec(*spec) for name, spec in plain["parameters"].items()})


def _spec(shape: Sequence[int], axis: int = 0, parts: Sequence[tuple[str, int, int]] = ()) -> TensorSpec:
    return TensorSpec(tuple(shape), axis, tuple(Part(Unit(unit), offset, span) for unit, offset, span in parts))
