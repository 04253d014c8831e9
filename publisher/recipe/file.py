"""A recipe from a file, for the commands that work without the service."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from publisher.errors import RequestFault
from publisher.files.json_object import read_object
from publisher.recipe.invalid_fields import wrong_fields
from publisher.recipe.recipe import Recipe


def read_recipe(path: Path) -> Recipe:
    """RequestFault names every field that is wrong and what would be right."""
    content = read_object(path)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RequestFault(f"{path} is not a recipe: {wrong_fields(error)}.", field="recipe") from error
