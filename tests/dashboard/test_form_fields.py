"""A model's fields in a form: what stands in them means what the body means."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from publisher.api.base_models_schema import BaseModelRequest
from publisher.api.corpora_schema import CorpusRequest
from publisher.api.variants_schema import VariantRequest
from publisher.dashboard import base_models, corpora, draft
from publisher.dashboard.draft import Draft
from publisher.dashboard.form_fields import Kind, body_of, fields_of, texts_of, without_defaults
from publisher.recipe import Recipe
from tests.dashboard.rows import RECIPE

FIELDS = {field.path: field for field in fields_of(VariantRequest)}
WHOLE = {
    "pruning": {
        "method": "unstructured",
        "criterion": "wanda",
        "ratio": 0.3,
        "calibration": {"corpora": ["novels", {"name": "docs", "weight": 2.5}], "samples": 64},
    },
    "alignment": {"corpora": ["docs"], "teacher_top_k": 8, "quantization_aware": False, "learning_rate": 1e-5},
    "evaluation": {"corpora": ["docs", "novels"], "require_certificate": "unless_failed", "tasks": ["arc_easy"]},
    "seed": 7,
}


def leaves(part: object, path: str) -> set[str]:
    """Paths of all that a recipe holds, written out; a list is one."""
    if isinstance(part, Mapping) and part:
        return {leaf for name, inner in part.items() for leaf in leaves(inner, f"{path}.{name}")}
    return {path}


def test_every_field_of_a_recipe_is_in_the_form() -> None:
    whole = Recipe.model_validate(WHOLE).model_dump(mode="json")
    assert leaves(whole, "recipe") == {path for path in FIELDS if path.startswith("recipe.")}


def test_what_is_shown_at_once_is_in_the_form() -> None:
    assert set(draft.EVERYDAY) <= FIELDS.keys()
    shown = [field.path for group in draft.groups() for field in (*group.everyday, *group.more)]
    assert sorted(shown) == sorted(FIELDS.keys() - {"base_model_id"})


@pytest.mark.parametrize("form", [base_models.REGISTRATION.form, corpora.REGISTRATION.form])
def test_every_field_has_its_place_in_a_section(form: corpora.ModelForm) -> None:
    assert sorted(name for section in form.sections for name in section.names) == sorted(form.fields)
    assert form.model in {BaseModelRequest, CorpusRequest}


@pytest.mark.parametrize("recipe", [RECIPE, Recipe.model_validate(WHOLE)])
def test_fields_say_the_recipe_that_filled_them(recipe: Recipe) -> None:
    short = without_defaults(recipe)
    texts = texts_of(FIELDS.values(), {"recipe": short})
    body = body_of(FIELDS.values(), texts)
    assert Recipe.model_validate(body["recipe"]).digest == Recipe.model_validate(short).digest == recipe.digest


def test_blank_fields_and_defaults_are_left_out() -> None:
    texts = {"recipe.pruning.ratio": "0.5", "recipe.alignment.tokens": "200000", "recipe.seed": "  "}
    assert body_of(FIELDS.values(), texts) == {"recipe": {"pruning": {"ratio": 0.5}}}


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("recipe.alignment.tokens", "100,000", 100_000),
        ("recipe.alignment.learning_rate", "1e-5", 1e-5),
        ("recipe.pruning.ratio", "half", "half"),
        ("recipe.pruning.ratio", "nan", "nan"),
        ("recipe.evaluation.corpora", "a, b\nc", ["a", "b", "c"]),
        ("recipe.alignment.corpora", "a × 3\nb 2", [{"name": "a", "weight": 3}, {"name": "b", "weight": 2}]),
        ("recipe.alignment.corpora", "×\nit is not one", [{"name": "×"}, {"name": "it is not one"}]),
        ("recipe.evaluation.require_certificate", "unless_failed", "unless_failed"),
        ("recipe.evaluation.require_certificate", "false", False),
        ("labels", "team=ads\nold", {"team": "ads", "old": ""}),
    ],
)
def test_texts_become_what_the_body_takes(path: str, text: str, value: object) -> None:
    assert FIELDS[path].read(text) == value


def test_a_default_that_follows_from_other_fields_can_be_left_to_them() -> None:
    scope = FIELDS["recipe.pruning.scope"]
    assert (scope.kind, scope.default) == (Kind.CHOICE, "")


def test_json_counts_until_the_fields_say_the_same() -> None:
    recipe = {"pruning": {"ratio": 0.5, "criterion": "magnitude", "rato": 1}}
    typed = Draft.typed({"json": draft.written(recipe), "json_was": "0" * 16, "recipe.pruning.ratio": "0.7"})
    assert typed.recipe == recipe
    assert typed.texts["recipe.pruning.ratio"] == "0.5"
    # sent again as it is, the word that no field stands for is not lost
    sent = {"json": typed.json, "json_was": typed.json_digest, **typed.texts}
    assert Draft.typed(sent).recipe == recipe
    assert [fault.field for fault in Draft.typed(sent).faults() if "rato" in (fault.field or "")]
    # who changes a field by the page's script says so
    assert Draft.typed(sent | {"json_was": draft.FIELDS_COUNT}).recipe == {
        "pruning": {"criterion": "magnitude", "ratio": 0.5}
    }


@pytest.mark.parametrize("text", ["{", "[]", "3", "[" * 5000, '{"seed": ' + "9" * 5000 + "}", '{"a": "\\ud800"}'])
def test_what_is_no_recipe_stays_as_it_was_typed(text: str) -> None:
    typed = Draft.typed({"json": text, "json_was": "", "recipe.pruning.ratio": "0.7"})
    assert typed.json == text
    assert [fault.field for fault in typed.faults()] == ["json"]
    assert typed.texts["recipe.pruning.ratio"] == "0.7"
