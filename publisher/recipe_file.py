"""A recipe from a file, for the commands that work without the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from publisher.errors import RequestFault
from publisher.file_faults import POINTERS, decoded, file_faults, refuse_foreign
from publisher.invalid_fields import invalid_fields
from publisher.recipe import Recipe


def read_recipe(path: Path) -> Recipe:
    """RequestFault names every field that is wrong and what would be right."""
    content = read_object(path)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        # as in a request, where the recipe is a field of the body
        located = [{**entry, "loc": ("body", "recipe", *entry["loc"])} for entry in error.errors()]
        wrong = "; ".join(f"{found.field}: {found.message}" for found in invalid_fields(located))
        raise RequestFault(f"{path} is not a recipe: {wrong}.", field="recipe") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; RequestFault if there is none."""
    with file_faults(str(path), field=None):
        data = path.read_bytes()
    refuse_foreign(str(path), data, POINTERS, field=None)
    try:
        value = json.loads(decoded(str(path), data, field=None))
    except (ValueError, RecursionError) as error:  # also of integers with thousands of digits
        raise RequestFault(f"{path} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise RequestFault(f"{path} is not a JSON object.")
    return value
