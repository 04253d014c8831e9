"""One recipe, varied: every combination of the values that some of its fields take."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue, ValidationError

from publisher.errors import RequestFault
from publisher.recipe.invalid_fields import wrong_fields
from publisher.recipe.recipe import Recipe

#: recipes of one variation: each becomes hours of work
MOST = 100
#: of a value or a path in a message
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Variation:
    """`values`: path in the recipe → what it is in this one."""

    values: Mapping[str, JsonValue]
    recipe: Recipe

    def __str__(self) -> str:
        return in_words(self.values)


def variations(recipe: Recipe, vary: Mapping[str, Sequence[JsonValue]]) -> list[Variation]:
    """All combinations, in order: the values of the last path change fastest.

    Raises RequestFault for too many, for paths that hold one another, for what is no recipe, or twice the same one.
    """
    _refuse_overlap(list(vary))
    count = math.prod(map(len, vary.values()))
    if not 1 <= count <= MOST:
        raise RequestFault(f"these are {count} combinations; 1 to {MOST} are allowed.", field="vary")
    found = [_vary(recipe, dict(zip(vary, values, strict=True))) for values in itertools.product(*vary.values())]
    _refuse_repeats(found)
    return found


def with_what_varies(recipe: Any, vary: Any) -> Any:
    """A recipe's JSON with the first value of each field in `vary` that it lacks and has to have; anything else as it
    is: nobody needs to name twice what varies."""
    if not isinstance(recipe, dict) or not isinstance(vary, Mapping):
        return recipe
    try:
        Recipe.model_validate(recipe)
    except ValidationError as error:
        missing = {".".join(map(str, each["loc"])) for each in error.errors() if each["type"] == "missing"}
        found = deepcopy(recipe)
        for path in missing & vary.keys():
            if isinstance(vary[path], list) and vary[path]:
                _set(found, path, vary[path][0])
        return found
    return recipe


def value_at(recipe: Mapping[str, Any], path: str) -> JsonValue:
    """What a recipe's JSON, defaults written out, has at `path`; None where it has no such part."""
    found: Any = recipe
    for step in path.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found  # type: ignore[no-any-return]


def in_words(values: Mapping[str, JsonValue]) -> str:
    """`pruning.ratio 0.5, seed 1`; of what is long its beginning."""
    return ", ".join(f"{_shortened(path)} {_shortened(json.dumps(value))}" for path, value in values.items())


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _refuse_overlap(paths: Sequence[str]) -> None:
    for path, other in itertools.permutations(paths, 2):
        if other.startswith(f"{path}."):
            raise RequestFault(f"{other} is a part of {path}: vary one of them.", field=f"vary.{other}")


def _vary(recipe: Recipe, values: Mapping[str, JsonValue]) -> Variation:
    varied = recipe.model_dump(mode="json", exclude_unset=True)
    for path, value in values.items():
        _set(varied, path, value)
    try:
        return Variation(values, Recipe.model_validate(varied))
    except ValidationError as error:
        wrong = {".".join(map(str, entry["loc"])) for entry in error.errors()}
        to_blame = next((path for path in values if any(_meet(path, place) for place in wrong)), None)
        field = f"vary.{to_blame}" if to_blame else "vary"
        raise RequestFault(f"with {in_words(values)}: {wrong_fields(error)}.", field=field) from error


def _set(part: dict[str, Any], path: str, value: JsonValue) -> None:
    *way, name = path.split(".")
    for step in way:
        if part.get(step) is None:
            part[step] = {}
        part = part[step]
        if not isinstance(part, dict):
            raise RequestFault(f"{step} in {path} is a list or a value: vary it as a whole.", field=f"vary.{path}")
    part[name] = value


def _meet(path: str, place: str) -> bool:
    return f"{place}.".startswith(f"{path}.") or f"{path}.".startswith(f"{place}.")


def _refuse_repeats(found: Sequence[Variation]) -> None:
    seen: dict[str, Variation] = {}
    for variation in found:
        twin = seen.setdefault(variation.recipe.digest, variation)
        if twin is not variation:
            raise RequestFault(f"{twin} and {variation} are the same recipe.", field="vary")
