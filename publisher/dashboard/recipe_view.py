"""A recipe as people read it: each field with what it came to, those that somebody changed apart from the defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue
from pydantic.fields import FieldInfo

from publisher.dashboard.recipe_use import meaning_of_none, used
from publisher.manifest.manifest import Manifest
from publisher.recipe import Recipe
from publisher.recipe.parts import RecipePart

#: of parts that have no fields of their own here
OTHER = "other"


@dataclass(frozen=True)
class Field:
    """`path` as in the API; `used`: what the value came to, where that is another."""

    path: str
    name: str
    value: str
    is_changed: bool
    used: str | None = None


@dataclass(frozen=True)
class Group:
    """A part of the recipe."""

    name: str
    fields: Sequence[Field]

    @property
    def changed(self) -> list[Field]:
        return [field for field in self.fields if field.is_changed]

    @property
    def defaults(self) -> list[Field]:
        return [field for field in self.fields if not field.is_changed]


def in_groups(recipe: Recipe, manifest: Manifest | None = None) -> list[Group]:
    """With those fields that mean something in it. What stands alone (the seed, a part left out) comes last.

    `manifest`: of the variant, once it is published; it says what was used.
    """
    found: dict[str, list[Field]] = {}
    for field in fields_of(recipe, manifest):
        part, dot, _ = field.path.partition(".")
        found.setdefault(part if dot else OTHER, []).append(field)
    alone = found.pop(OTHER, [])
    return [Group(name, fields) for name, fields in [*found.items(), (OTHER, alone)]]


def fields_of(recipe: Recipe, manifest: Manifest | None = None) -> Iterator[Field]:
    """All of them in the recipe's order."""
    for path, name, part, declared in _walk(recipe):
        value = getattr(part, declared.name)
        is_changed = declared.info.is_required() or value != _default(declared.info, part)
        yield Field(path, name, _said(path, value), is_changed, used(path, recipe, manifest))


@dataclass(frozen=True)
class _Declared:
    name: str
    info: FieldInfo


def _walk(recipe: Recipe) -> Iterator[tuple[str, str, RecipePart, _Declared]]:
    """Path, words, the part that has it and the field, of all that say something in this recipe."""
    silent = _silent(recipe)
    return (found for found in _parts(recipe, "", "") if found[0] not in silent)


def _parts(part: RecipePart, above: str, words: str) -> Iterator[tuple[str, str, RecipePart, _Declared]]:
    for name, info in type(part).model_fields.items():
        path, value = f"{above}{name}", getattr(part, name)
        named = f"{words} {name}".strip().replace("_", " ")
        if isinstance(value, RecipePart):
            # a part of the recipe is a group, whose name its fields need not repeat
            yield from _parts(value, f"{path}.", named if above else "")
        else:
            yield path, named, part, _Declared(name, info)


def _said(path: str, value: object) -> str:
    return meaning_of_none(path) if value is None else _words(value)


def _default(declared: FieldInfo, part: RecipePart) -> object:
    return declared.get_default(call_default_factory=True, validated_data=dict(part))


def _silent(recipe: Recipe) -> set[str]:
    """Fields that say nothing in this recipe."""
    silent = {f"pruning.{name}" for name in recipe.pruning.unread}
    if recipe.pruning.calibration:  # names its text in one of two ways
        silent.add(f"pruning.calibration.{'corpora' if recipe.pruning.calibration.corpus else 'corpus'}")
    return silent


def _words(value: object) -> str:
    if value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_listed(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def _listed(item: object) -> str:
    """A corpus with its share is `name × weight`."""
    content = item.model_dump(mode="json") if isinstance(item, RecipePart) else item
    return " × ".join(_words(part) for part in content.values()) if isinstance(content, Mapping) else str(content)


@dataclass(frozen=True)
class Difference:
    """A field whose value is not the same in all recipes: `values` in their order, None where one lacks it."""

    path: str
    values: Sequence[str | None]

    @property
    def name(self) -> str:
        return path_words(self.path)


def path_words(path: str) -> str:
    """`alignment.batch_tokens` → `alignment batch tokens`."""
    return path.replace(".", " ").replace("_", " ")


def value_words(value: JsonValue) -> str:
    """A value of a recipe's JSON; of a part its JSON."""
    if (
        value is None
        or isinstance(value, dict)
        or (isinstance(value, list) and any(isinstance(it, dict) for it in value))
    ):
        return "none" if value is None else json.dumps(value, ensure_ascii=False)
    return _words(value)


def differences(recipes: Sequence[Recipe | None]) -> list[Difference]:
    """The fields that are not the same in all of `recipes`, in a recipe's order; None: one that cannot be read."""
    known = [recipe for recipe in recipes if recipe is not None]
    told = [{} if recipe is None else _values(recipe) for recipe in recipes]
    paths = dict.fromkeys(path for fields in told for path in fields)
    found = [Difference(path, [fields.get(path) for fields in told]) for path in paths]
    return [each for each in found if len(known) > 1 and len({*_of_known(each, recipes)}) > 1]


def _values(recipe: Recipe) -> dict[str, str]:
    """By path, in words; of a part that may be left out whether it is there."""
    found: dict[str, str] = {}
    for path, _, part, declared in _walk(recipe):
        for end in (place for place, letter in enumerate(path) if letter == "."):
            found.setdefault(path[:end], "yes")
        found[path] = _said(path, getattr(part, declared.name))
    return found


def _of_known(difference: Difference, recipes: Sequence[Recipe | None]) -> Iterator[str | None]:
    for value, recipe in zip(difference.values, recipes, strict=True):
        if recipe is not None:
            yield value
