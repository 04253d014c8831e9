"""What a variant's row holds as JSON, as types: whatever version of this package wrote it, a row can be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from publisher.errors import RequestFault
from publisher.manifest.manifest import Manifest
from publisher.manifest.verdict import Verdict
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


@dataclass(frozen=True)
class Summary:
    """`reduction`: how many times fewer parameters; None where the manifest cannot be read, or has no certificate."""

    reduction: float | None = None
    verdict: Verdict | None = None


def summary_of(manifest: Mapping[str, Any]) -> Summary:
    """What lists of variants are sorted by, kept in the row beside its manifest."""
    try:
        read = Manifest.parse(manifest, "the manifest")
    except RequestFault:
        return Summary()
    certificate = read.evaluation.certificate if read.evaluation else None
    return Summary(read.parameters.reduction, certificate.verdict if certificate else None)
