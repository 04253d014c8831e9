"""Recipes that other versions stored: read as what they meant, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from publisher.errors import RequestFault
from publisher.recipe import Recipe
from publisher.recipe.parts import shares_of
from publisher.recipe.stored import stored_recipe
from publisher.recipe.versions import CURRENT, VERSIONS, version_of
from tests.recipe.history import HISTORY, NEWER, REMOVED, UNREADABLE, Stored

OLDEST: dict[str, Any] = {
    "pruning": {
        "method": "structured",
        "criterion": "taylor",
        "ratio": 0.65,
        "protect_first": 4,
        "protect_last": 2,
        "calibration": {"corpus": "classics", "samples": 32, "sequence_length": 256},
    },
    "alignment": {
        "corpora": [{"name": "classics", "weight": 3.0}],
        "tokens": 131072,
        "sequence_length": 512,
        "batch_tokens": 4096,
        "learning_rate": 0.0001,
        "warmup_fraction": 0.1,
        "optimizer": "adamw",
        "objective": "distillation",
    },
    "quantization": {"scheme": "nf4"},
    "evaluation": {
        "corpora": ["novel"],
        "probe": True,
        "tokens": 16384,
        "sequence_length": 256,
        "probe_budget": {"steps": 40, "batch_size": 4, "sequence_length": 256, "rank": 8, "learning_rate": 0.001},
    },
    "seed": 7,
}


def fields(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """`pruning.ratio` of all that has no fields of its own."""
    for name, field in model.model_fields.items():
        part = _model_in(field.annotation)
        yield from [above + name] if part is None else fields(part, f"{above}{name}.")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _model_in(argument))), None)


def kept(recipe: Recipe, stored: Any) -> Any:
    """Of the recipe that was read, what the stored one has."""
    return _kept(recipe.model_dump(mode="json"), stored)


def _kept(read: Any, stored: Any) -> Any:
    if isinstance(stored, dict):
        return {name: _kept(read[name], value) for name, value in stored.items()}
    if isinstance(stored, list):
        return [_kept(one, other) for one, other in zip(read, stored, strict=True)]
    return read


def by_share(part: Any) -> Any:
    """With what counts of corpora's weights: the share of each."""
    if isinstance(part, list) and part and isinstance(part[0], dict):
        total = sum(corpus["weight"] for corpus in part)
        return {corpus["name"]: round(corpus["weight"] / total, 9) for corpus in part}
    return {name: by_share(value) for name, value in part.items()} if isinstance(part, dict) else part


@pytest.mark.parametrize("stored", HISTORY, ids=lambda stored: f"version {stored.version}")
def test_recipe_of_every_version_is_read_and_keeps_what_it_says(stored: Stored) -> None:
    recipe = stored_recipe(stored.recipe, stored.version)
    assert by_share(kept(recipe, stored.recipe)) == by_share(stored.recipe)
    assert stored_recipe(stored.recipe) == recipe  # as in a manifest, where no version stands beside it


def test_recipe_of_before_a_field_means_what_was_done_without_it() -> None:
    recipe = stored_recipe(OLDEST, 1)
    alignment, evaluation = recipe.alignment, recipe.evaluation
    assert alignment is not None
    assert evaluation is not None
    assert recipe.pruning.scope == "uniform"
    assert (alignment.reconstruction_tokens, alignment.gradient_matching, alignment.practice_steps) == (0, 0, 0)
    assert (alignment.quantization_aware, recipe.is_quantization_aware) == (False, False)
    assert (evaluation.direct, evaluation.gradient_fidelity, evaluation.require_certificate) == (False, False, False)
    asked_today = Recipe.model_validate(OLDEST)
    assert asked_today.pruning.scope == "joint"
    assert asked_today.evaluation is not None
    assert asked_today.evaluation.require_certificate is True


def test_weights_that_had_no_bound_keep_their_proportion() -> None:
    heavy = [{"name": "a", "weight": 1e12}, {"name": "b", "weight": 3e12}]
    recipe = stored_recipe(OLDEST | {"alignment": OLDEST["alignment"] | {"corpora": heavy}}, 1)
    assert recipe.alignment is not None
    assert shares_of(recipe.alignment.corpora, 100) == {"a": 25, "b": 75}


def test_recipe_of_today_is_read_as_it_is() -> None:
    recipe = Recipe.model_validate(OLDEST)
    stored = recipe.model_dump(mode="json")
    assert version_of(stored) == CURRENT
    assert stored_recipe(stored, CURRENT) == stored_recipe(stored) == recipe
    assert stored_recipe(stored).digest == recipe.digest


@pytest.mark.parametrize(
    ("stored", "said", "way_out"),
    [
        (UNREADABLE, "recipe.alignment: teacher_top_k keeps the base model's likeliest tokens alone", "a new variant"),
        (REMOVED, "recipe.pruning.schedule: there is no field 'schedule' here", "a new variant"),
        (NEWER, "of recipes this is version 99, and 11 is the newest known here", "Upgrade"),
    ],
    ids=["combination of before", "field that is no more", "newer version"],
)
def test_what_cannot_be_read_is_refused_by_name(stored: Stored, said: str, way_out: str) -> None:
    with pytest.raises(RequestFault) as refused:
        stored_recipe(stored.recipe, stored.version)
    assert refused.value.message.startswith(f"this recipe was written by another version: {said}")
    assert refused.value.way_out is not None
    assert way_out in refused.value.way_out


def test_every_field_came_with_a_version() -> None:
    """A field that is missing here was added without one: add to VERSIONS the version that brings it, with the function
    that makes a recipe of the version before one of it (what was done without the field, which need not be its
    default), and recipes that the version before wrote to history.jsonl. One too many was removed or renamed: that
    takes a version, too, whose function removes or renames it in recipes of before."""
    brought = [name for version in VERSIONS.values() for name in version.fields]
    assert len(set(brought)) == len(brought)
    assert set(fields(Recipe)) == set(brought)
    assert sorted(VERSIONS) == list(range(1, CURRENT + 1))


def test_history_holds_recipes_of_every_version() -> None:
    assert {stored.version for stored in HISTORY} == set(VERSIONS)
