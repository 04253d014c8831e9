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
from publisher.recipe import Calibration, Evaluation, Recipe
from publisher.recipe.file import read_recipe

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


def test_calibration_shares_its_samples_by_weight() -> None:
    corpora = [{"name": "a", "weight": 3}, {"name": "b", "weight": 1.5}, {"name": "c"}]
    calibration = Calibration.model_validate({"corpora": corpora, "samples": 10})
    assert calibration.shares == {"a": 5, "b": 3, "c": 2}  # 5.45, 2.73, 1.82
    bare = Calibration.model_validate({"corpora": [corpora[0], corpora[1], "c"], "samples": 10})
    assert bare == calibration
    recipe = Recipe.model_validate({"pruning": {"ratio": 0.5, "calibration": calibration}})
    assert recipe.corpus_names() == ["a", "b", "c"]
    assert Calibration(corpus="a", samples=10).shares == {"a": 10}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"pruning": {"ratio": 0.5}}, "criterion taylor needs"),
        (SMALL | {"alignment": ALIGNMENT | {"batch_tokens": 1000}}, "not a multiple of sequence_length"),
        (SMALL | {"alignment": ALIGNMENT | {"tokens": 100}}, "less than one batch"),
        (SMALL | {"alignment": ALIGNMENT | {"corpora": [{"name": "a"}, {"name": "a"}]}}, "names one corpus twice"),
        (SMALL | {"alignment": ALIGNMENT | {"corpora": ["a", "../b"]}}, "corpora.1.name"),
        (SMALL | {"alignment": ALIGNMENT | {"corpora": [1]}}, "corpora.0"),
        *(
            ({"pruning": {"ratio": 0.5, "calibration": {"corpora": [{"name": "a", "weight": weight}, "b"]}}}, "weight")
            for weight in (0, -1, 1e308, float("inf"), float("nan"))
        ),
        ({"pruning": {"criterion": "random", "ratio": 1}}, "less than 1"),
        ({"pruning": {"criterion": "wnada", "ratio": 0.5}}, "'taylor', 'sparsegpt', 'wanda', 'magnitude' or 'random'"),
        ({"pruning": {"criterion": "wanda", "ratio": 0.5}}, "magnitude and random do without"),
    ],
)
def test_contradictions_are_refused(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(recipe)


CALIBRATION = {"corpus": "general"}
UNSTRUCTURED = {"method": "unstructured", "criterion": "magnitude", "ratio": 0.5}
UNIFORM = {"criterion": "random", "ratio": 0.5, "protect_first": 0, "protect_last": 0, "layout": "uniform"}


@pytest.mark.parametrize("criterion", ["random", "magnitude", "taylor", "wanda"])
def test_structured_goes_with_every_score_of_units(criterion: str) -> None:
    Recipe.model_validate({"pruning": {"criterion": criterion, "ratio": 0.5, "calibration": CALIBRATION}})


@pytest.mark.parametrize("method", ["semi_structured", "unstructured"])
@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt"])
def test_masks_of_weights_go_with_every_score_of_weights(method: str, criterion: str) -> None:
    pruning = {"method": method, "criterion": criterion, "ratio": 0.5, "calibration": CALIBRATION}
    Recipe.model_validate({"pruning": pruning})


@pytest.mark.parametrize(
    ("pruning", "message"),
    [
        ({"criterion": "sparsegpt", "ratio": 0.5}, "sparsegpt does not go with method structured, which takes taylor"),
        (UNSTRUCTURED | {"criterion": "taylor"}, "taylor does not go with method unstructured, which takes sparsegpt"),
        (UNSTRUCTURED | {"criterion": "random"}, "random does not go with method unstructured"),
        ({"criterion": "wanda", "method": "unstructured", "ratio": 0.5}, "wanda needs .* magnitude does without"),
        (UNSTRUCTURED | {"pattern": "4:8"}, "pattern 4:8 does not go with .* but with semi_structured"),
        (UNSTRUCTURED | {"pattern": "1:4"}, "'2:4' or '4:8'"),
        (UNSTRUCTURED | {"method": "semi_structured", "ratio": 0.6}, "ratio 0.6 cannot be had with pattern 2:4"),
        (UNSTRUCTURED | {"scope": "global"}, "scope global does not go with .* but with structured"),
        (UNSTRUCTURED | {"round_to": 64}, "round_to 64 does not go with"),
        (UNSTRUCTURED | {"layout": "uniform"}, "layout uniform does not go with"),
        ({"criterion": "random", "ratio": 0.5, "storage": "compressed"}, "storage compressed does not go with"),
        ({"criterion": "random", "ratio": 0.5, "neuron_floor": 0.3}, "neuron_floor 0.3 is for scope global"),
        ({"ratio": 0.5, "calibration": {}}, 'as "corpus" or, .* "corpora": none is given'),
        ({"ratio": 0.5, "calibration": {"corpus": "a", "corpora": [{"name": "b"}]}}, "both are given"),
        ({"ratio": 0.5, "calibration": {"corpora": [{"name": "a"}, {"name": "a"}]}}, "names one corpus twice: a, a"),
        (
            {"ratio": 0.5, "calibration": {"samples": 3, "corpora": [{"name": "a", "weight": 9}, {"name": "b"}]}},
            "corpus b gets none of 3 samples by its weight",
        ),
        ({"criterion": "random", "ratio": 0.5, "layout": "uniform"}, "set protect_first 4 and protect_last 2 to 0"),
        (UNIFORM | {"scope": "global"}, "scope global one for each"),
        (UNIFORM | {"criterion": "taylor", "scope": "joint"}, "scope joint one for each"),
        ({"criterion": "wanda", "ratio": 0.5, "scope": "joint"}, "which wanda's scores do not tell; choose criterion"),
        (UNIFORM | {"round_to": 0}, "greater than or equal to 1"),
        (UNSTRUCTURED | {"storage": "compressed"}, "quantization.scheme nf4"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(pruning: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate({"pruning": pruning})


def test_compressed_storage_of_unquantized_weights_is_taken() -> None:
    pruning = UNSTRUCTURED | {"storage": "compressed"}
    Recipe.model_validate({"pruning": pruning, "quantization": {"scheme": "none"}})


@pytest.mark.parametrize(
    ("pruning", "scope"),
    [
        ({"calibration": {"corpus": "prose"}}, "joint"),
        ({"calibration": {"corpus": "prose"}, "scope": "uniform"}, "uniform"),
        ({"criterion": "magnitude"}, "uniform"),
        ({"calibration": {"corpus": "prose"}, "layout": "uniform", "protect_first": 0, "protect_last": 0}, "uniform"),
        ({"method": "unstructured", "criterion": "magnitude"}, "uniform"),
    ],
    ids=["taylor", "asked for", "scores of their own kind alone", "one width", "single weights"],
)
def test_scope_is_joint_wherever_it_can_be(pruning: dict[str, Any], scope: str) -> None:
    recipe = Recipe.model_validate({"pruning": {"ratio": 0.5, **pruning}, "quantization": {"scheme": "none"}})
    assert recipe.pruning.scope == scope
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_pattern_says_the_ratio() -> None:
    short = {"method": "semi_structured", "criterion": "magnitude"}
    written_out = short | {"ratio": 0.5, "pattern": "2:4"}
    recipes = [Recipe.model_validate({"pruning": pruning}) for pruning in (short, written_out)]
    assert recipes[0].digest == recipes[1].digest


def test_the_designs_own_recipe_is_taken() -> None:
    Recipe.model_validate(
        {
            "pruning": {
                "method": "structured",
                "criterion": "taylor",
                "ratio": 0.65,
                "pattern": "2:4",
                "protect_first": 4,
                "protect_last": 2,
                "calibration": {"corpus": "general", "samples": 32, "sequence_length": 256},
            },
            "alignment": {
                "corpora": [{"name": "general", "weight": 1.0}],
                "tokens": 200000,
                "sequence_length": 512,
                "batch_tokens": 4096,
                "learning_rate": 1e-4,
                "optimizer": "adamw",
                "objective": "distillation",
            },
            "quantization": {"scheme": "nf4"},
            "evaluation": {"corpora": ["general"], "probe": True},
            "seed": 0,
        }
    )


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
    with pytest.raises(RequestFault, match=message) as refused:
        read_recipe(tmp_path / "recipe.json")
    assert "scope" not in str(refused.value)  # whose default follows from other fields, right or wrong


@pytest.mark.parametrize("required", [True, False, "unless_failed"])
def test_a_recipe_says_whether_a_certificate_has_to_pass(required: bool | str) -> None:
    found = Evaluation.model_validate_json(json.dumps({"corpora": ["novel"], "require_certificate": required}))
    assert found.require_certificate == required
    assert json.loads(found.model_dump_json())["require_certificate"] == required


def test_a_certificate_is_required_by_default_and_not_sometimes() -> None:
    assert Evaluation(corpora=["novel"]).require_certificate is True
    with pytest.raises(ValidationError, match="unless_failed"):
        Evaluation.model_validate({"corpora": ["novel"], "require_certificate": "sometimes"})


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_no_obstacle(mark: bytes, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes(mark + b'{"pruning": {"ratio": 0.5, "criterion": "random"}}\r\n')
    assert read_recipe(tmp_path / "recipe.json").pruning.ratio == 0.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        ('{"pruning": {}}'.encode("utf-16"), "is UTF-16, not UTF-8"),
        (b'{"pruning": {}, "x": "caf\xe9"}', "line 1 is not UTF-8"),
        (b'{"seed": ' + b"1" * 5000 + b"}", "is not JSON: Exceeds the limit"),
        (b"[" * 100_000, "nested too deep"),
        (b"[]", "is not a JSON object"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "Git LFS pointer"),
        (b'{"pruning": {"ratio": NaN, "criterion": "random"}}', "recipe.pruning.ratio"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_words(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes(content)
    with pytest.raises(RequestFault, match=message):
        read_recipe(tmp_path / "recipe.json")


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestFault, match=r"recipe.json does not exist"):
        read_recipe(tmp_path / "recipe.json")
