"""The recipe: what it means does not depend on how it is written, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from publisher.errors import RequestFault
from publisher.recipe import Recipe
from publisher.recipe_file import read_recipe

SMALL = {"pruning": {"criterion": "random", "ratio": 0.5}}
ALIGNMENT = {"corpora": [{"name": "general"}], "tokens": 8192, "sequence_length": 512, "batch_tokens": 4096}


def shuffled(value: Any, order: st.DataObject) -> Any:
    if not isinstance(value, dict):
        return value
    keys = order.draw(st.permutations(sorted(value)))
    return {key: shuffled(value[key], order) for key in keys}


@given(st.data())
def test_the_digest_depends_on_the_meaning_alone(order: st.DataObject) -> None:
    recipe = Recipe.model_validate(SMALL | {"alignment": ALIGNMENT})
    written_out = recipe.model_dump(mode="json")
    assert Recipe.model_validate(shuffled(written_out, order)).digest == recipe.digest


def test_another_seed_is_another_recipe() -> None:
    assert Recipe.model_validate(SMALL).digest != Recipe.model_validate(SMALL | {"seed": 1}).digest


def test_corpora_are_named_once_in_order_of_use() -> None:
    recipe = Recipe.model_validate(
        {
            "pruning": {"ratio": 0.5, "calibration": {"corpus": "a"}},
            "alignment": {"corpora": [{"name": "b"}, {"name": "a"}]},
            "evaluation": {"corpora": ["c", "b"]},
        }
    )
    assert recipe.corpus_names() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"pruning": {"ratio": 0.5}}, "criterion taylor needs"),
        (SMALL | {"alignment": ALIGNMENT | {"batch_tokens": 1000}}, "not a multiple of sequence_length"),
        (SMALL | {"alignment": ALIGNMENT | {"tokens": 100}}, "less than one batch"),
        (SMALL | {"alignment": ALIGNMENT | {"corpora": [{"name": "a"}, {"name": "a"}]}}, "names one corpus twice"),
        ({"pruning": {"criterion": "random", "ratio": 1}}, "less than 1"),
        ({"pruning": {"criterion": "wanda", "ratio": 0.5}}, "'taylor', 'magnitude' or 'random'"),
    ],
)
def test_contradictions_are_refused(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(recipe)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        (json.dumps({"pruning": {"criterion": "random", "ratoi": 0.5}}), "did you mean ratio"),
        (json.dumps({"pruning": {"criterion": "random", "ratio": 1.2}}), "recipe.pruning.ratio: 1.2 is not valid"),
    ],
)
def test_a_recipe_file_that_is_wrong_is_refused_by_field(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(RequestFault, match=message):
        read_recipe(tmp_path / "recipe.json")
