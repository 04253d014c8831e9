"""Whether weights fit the masks: every parameter's shape in the files' headers against what the masks leave of it.

The base model's structure is in the masks file, so nothing else is asked: neither transformers nor the base model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from publisher.architecture.structure import LayerKind, Shape, Unit

Shapes = Mapping[str, Shape]


def by_layer(shapes: Shapes, prefix: str) -> dict[int, dict[str, Shape]]:
    """Layer → the parameters of `shapes` in it, by their names there."""
    layers: dict[int, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        number, _, inside = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and number.isdigit() and inside:
            layers.setdefault(int(number), {})[inside] = shape
    return layers


def left_of(kind: LayerKind, counts: Mapping[Unit, int]) -> dict[str, Shape]:
    """The parameters of a layer of `kind` in which `counts` units are left."""
    return {name: spec.pruned_shape(counts) for name, spec in kind.parameters.items()}


def unfit(where: str, found: Shapes, expected: Shapes, *, others: bool) -> Iterator[str]:
    """Where the parameters `found` in a layer (`where`: what its names begin with) are not `expected`, a clause each.

    Experts are one tensor each in files and fused in the module that the masks describe: of names that only one side
    has, the number of values is compared. `others`: files may hold what the masks know nothing of.
    """
    for name in sorted(found.keys() & expected.keys()):
        if found[name] != expected[name]:
            yield f"{where}{name} has shape {in_words(found[name])}, and {in_words(expected[name])} by the masks"
    missing = {name: expected[name] for name in expected if name not in found}
    further = {name: found[name] for name in found if name not in expected}
    if missing and further and _values(missing) != _values(further):
        yield (
            f"{where}… has {_values(further):,} values in {_some(further)}, and {_values(missing):,} by the masks, in "
            f"{_some(missing)}"
        )
    elif missing and not further:
        yield f"{where}… has no {_some(missing)}, which it has by the masks"
    elif further and not missing and not others:
        yield f"{where}… has {_some(further)}, of which the masks know nothing"


def _values(shapes: Shapes) -> int:
    return sum(map(prod, shapes.values()))


def in_words(shape: Shape) -> str:
    """`960 × 576`"""
    return " × ".join(map(str, shape)) or "of no axis"


def _some(names: Mapping[str, object]) -> str:
    first = sorted(names)[0]
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more"
