"""A recipe varied: every combination once, each a recipe of its own."""

from __future__ import annotations

from typing import Any

import pytest

from publisher.errors import RequestFault
from publisher.recipe import Recipe
from publisher.recipe.variations import value_at, variations

RECIPE = Recipe.model_validate(
    {
        "pruning": {"ratio": 0.5, "calibration": {"corpus": "novel"}},
        "alignment": {"corpora": ["novel"], "tokens": 8192},
    }
)


def test_every_combination_is_made_and_the_last_field_changes_fastest() -> None:
    found = variations(RECIPE, {"pruning.ratio": [0.5, 0.8], "seed": [1, 2]})
    assert [dict(one.values) for one in found] == [
        {"pruning.ratio": 0.5, "seed": 1},
        {"pruning.ratio": 0.5, "seed": 2},
        {"pruning.ratio": 0.8, "seed": 1},
        {"pruning.ratio": 0.8, "seed": 2},
    ]
    assert [(one.recipe.pruning.ratio, one.recipe.seed) for one in found] == [(0.5, 1), (0.5, 2), (0.8, 1), (0.8, 2)]


def test_what_is_not_varied_stays_as_it_was_asked_for() -> None:
    (one,) = variations(RECIPE, {"pruning.ratio": [0.8]})
    asked = RECIPE.model_dump(mode="json")
    asked["pruning"]["ratio"] = 0.8
    assert one.recipe.model_dump(mode="json") == asked


def test_parts_that_were_left_out_can_be_varied_and_parts_be_left_out() -> None:
    schemes = variations(RECIPE, {"quantization.scheme": ["none", "nf4"]})
    assert [one.recipe.quantization.scheme for one in schemes] == ["none", "nf4"]
    aligned = variations(RECIPE, {"alignment": [None, {"corpora": ["novel"], "tokens": 4096}]})
    assert [one.recipe.alignment and one.recipe.alignment.tokens for one in aligned] == [None, 4096]


@pytest.mark.parametrize(
    ("vary", "field", "said"),
    [
        ({"pruning.ratio": [0.5, 1.5]}, "vary.pruning.ratio", "with pruning.ratio 1.5: .*1.5 is not valid"),
        ({"pruning.ration": [0.5]}, "vary.pruning.ration", "did you mean ratio"),
        ({"pruning.ratio.x": [0.5]}, "vary.pruning.ratio.x", "vary it as a whole"),
        ({"alignment.corpora.0.weight": [1, 2]}, "vary.alignment.corpora.0.weight", "vary it as a whole"),
        ({"seed": [1], "pruning": [{"ratio": 0.5}], "pruning.ratio": [1]}, "vary.pruning.ratio", "part of pruning"),
        ({"seed": list(range(11)), "alignment.tokens": list(range(1, 11))}, "vary", "110 combinations; 1 to 100"),
        ({"pruning.ratio": [0.5, 0.50]}, "vary", "the same recipe"),
    ],
)
def test_what_cannot_be_varied_so_is_refused_by_name(vary: dict[str, list[Any]], field: str, said: str) -> None:
    with pytest.raises(RequestFault, match=said) as refused:
        variations(RECIPE, vary)
    assert refused.value.field == field


def test_value_at_a_path() -> None:
    told = RECIPE.model_dump(mode="json")
    assert value_at(told, "pruning.calibration.corpus") == "novel"
    assert value_at(told, "evaluation.probe") is None


@pytest.mark.parametrize(
    "vary",
    [
        {"pruning.calibration.corpus": ["x" * 10_000], "pruning.ratio": [1.5]},
        {"pruning.criterion": ["x" * 10_000]},
        {"alignment": [{"corpora": ["x" * 100] * 100, "tokens": -1}]},
        {"x" * 10_000: [1]},
    ],
)
def test_long_values_are_not_quoted_whole(vary: dict[str, list[Any]]) -> None:
    with pytest.raises(RequestFault) as refused:
        variations(RECIPE, vary)
    assert len(refused.value.message) < 1000
