"""Recipes that were stored, perhaps by another version of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from publisher.errors import RequestFault
from publisher.recipe.invalid_fields import wrong_fields
from publisher.recipe.recipe import Recipe
from publisher.recipe.versions import CURRENT, VERSIONS, upgraded, version_of

_ANOTHER = "this recipe was written by another version: "


def stored_recipe(content: Mapping[str, Any], version: int | None = None) -> Recipe:
    """`content` as one of today's recipes, meaning what it meant; `version`: of publisher.recipe.versions, None where
    none was stored with it, as in a manifest.

    Raises RequestFault naming what cannot be read; such a recipe is to be shown as it is, not to be run.
    """
    version = version_of(content) if version is None else version
    if version not in VERSIONS:
        raise RequestFault(
            f"{_ANOTHER}of recipes this is version {version}, and {CURRENT} is the newest known here.",
            field="recipe",
            way_out="Upgrade loram-publisher.",
        )
    try:
        return Recipe.model_validate(upgraded(content, version))
    except ValidationError as error:
        raise RequestFault(
            f"{_ANOTHER}{wrong_fields(error)}.", field="recipe", way_out="Ask for a new variant with today's fields."
        ) from error
