"""What a variant's row holds as JSON, as types: whatever version of this package wrote it, a row can be shown."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.errors import RequestFault
from publisher.manifest.manifest import Manifest
from publisher.recipe.recipe import Recipe
from publisher.recipe.stored import stored_recipe
from publisher.store.models import Variant


@dataclass(frozen=True)
class Unreadable:
    """`reason`: a sentence for people."""

    reason: str


def recipe_of(variant: Variant) -> Recipe | Unreadable:
    """As one of today's recipes; `variant.recipe_digest` stays that of the recipe as it was asked for."""
    try:
        return stored_recipe(variant.recipe, variant.recipe_version)
    except RequestFault as fault:
        return Unreadable(str(fault))


def manifest_of(variant: Variant) -> Manifest | Unreadable | None:
    """None before it is published."""
    if variant.manifest is None:
        return None
    try:
        return Manifest.parse(variant.manifest, f"the manifest of variant {variant.id}")
    except RequestFault as fault:
        return Unreadable(str(fault))
