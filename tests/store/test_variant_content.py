"""Whatever version wrote a variant's row, it can be shown."""

from __future__ import annotations

from publisher.manifest.manifest import Manifest
from publisher.recipe import Recipe
from publisher.store.models import Variant
from publisher.store.variant_content import Unreadable, manifest_of, recipe_of
from tests.manifest.contents import content
from tests.recipe.history import HISTORY, NEWER, REMOVED, UNREADABLE


def test_recipe_is_read_by_the_version_that_stands_beside_it() -> None:
    oldest = HISTORY[0]
    assert oldest.version == 1
    read = recipe_of(Variant(recipe=oldest.recipe, recipe_version=1))
    assert isinstance(read, Recipe)
    assert read.pruning.scope == "uniform"


def test_recipe_that_cannot_be_read_says_why() -> None:
    for stored in (UNREADABLE, REMOVED, NEWER):
        read = recipe_of(Variant(recipe=stored.recipe, recipe_version=stored.version))
        assert isinstance(read, Unreadable)
        assert read.reason.startswith("this recipe was written by another version: ")


def test_manifest_of_every_major_version_up_to_this_is_read() -> None:
    assert manifest_of(Variant(id="v", manifest=None)) is None
    for version in ("1.0", "2.0", "2.3", "2.9"):
        assert isinstance(manifest_of(Variant(id="v", manifest=content(format_version=version))), Manifest)


def test_manifest_that_cannot_be_read_says_why() -> None:
    for manifest, said in ((content(format_version="3.0"), "format_version 3.0"), ({}, "no format_version")):
        read = manifest_of(Variant(id="var_1", manifest=manifest))
        assert isinstance(read, Unreadable)
        assert said in read.reason
        assert "variant var_1" in read.reason
