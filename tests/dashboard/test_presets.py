"""Recipes to begin with are recipes, and do what their buttons say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from publisher.architecture.widths import pruned_widths
from publisher.corpus.facts import CorpusFacts
from publisher.dashboard import presets
from publisher.dashboard.plan_view import kept_per_layer
from publisher.dashboard.presets import Ground, Text
from publisher.errors import RequestFault
from publisher.plan.plan import GIB, Plan, make_plan
from publisher.recipe import Recipe
from tests.dashboard.rows import FACTS, GEOMETRY


def text(name: str, train_bytes: int, held_out: int = 20) -> Text:
    counted = {"documents": 100, "characters": train_bytes, "train_documents": 100 - held_out, "held_out_bytes": 9_000}
    return Text(
        name,
        CorpusFacts(**counted, train_bytes=train_bytes, held_out_documents=held_out, content_digest="0"),
    )


def of_layers(layers: int) -> Ground:
    """Such a model with so many layers of its kind."""
    geometry = replace(GEOMETRY, layers=layers, kind_of=(0,) * layers)
    changed = {"geometry": geometry, "parameters": geometry.parameters(), "bytes": 2 * geometry.parameters()}
    return Ground(FACTS.model_copy(update=changed), [])


def plan_of(ground: Ground, recipe: dict[str, Any]) -> Plan:
    return make_plan(
        ground.base.geometry, Recipe.model_validate(recipe), base_bytes=ground.base.bytes, flops_per_second=1e12
    )


GROUNDS = {
    "no text": Ground(FACTS, []),
    "hardly any text": Ground(FACTS, [text("note", 3_000, held_out=0)]),
    "a book": Ground(FACTS, [text("book", 900_000, held_out=5)]),
    "enough": Ground(FACTS, [text("docs", 10**9), text("FineWeb-10BT", 10**10), text("openwebmath", 10**10)]),
    "a dataset": Ground(FACTS, [Text("fineweb", None)]),
}
MAKERS = (
    presets.starting,
    presets.best_carry_over,
    presets.of_the_paper,
    lambda ground: presets.fits_a_card(ground, 24),
)


@pytest.mark.parametrize("ground", GROUNDS.values(), ids=GROUNDS.keys())
@pytest.mark.parametrize("make", MAKERS)
def test_presets_are_recipes_whatever_text_there_is(ground: Ground, make: Any) -> None:
    assert plan_of(ground, make(ground)).parameters.pruned < FACTS.parameters


def test_alignment_takes_whole_batches_of_the_text_that_is_there() -> None:
    enough, book = presets.of_the_paper(GROUNDS["enough"]), presets.of_the_paper(GROUNDS["a book"])
    assert enough["alignment"]["corpora"] == ["FineWeb-10BT", "openwebmath"]
    assert enough["alignment"]["tokens"] == 1600 * 128 * 512
    assert 900_000 / 10 < book["alignment"]["tokens"] <= 900_000 / 5
    assert book["alignment"]["tokens"] % book["alignment"]["batch_tokens"] == 0
    assert "alignment" not in presets.of_the_paper(GROUNDS["hardly any text"])


def test_certificate_has_to_pass_where_that_can_be_told() -> None:
    assert "require_certificate" not in presets.best_carry_over(GROUNDS["enough"])["evaluation"]
    assert presets.best_carry_over(GROUNDS["a book"])["evaluation"]["require_certificate"] == "unless_failed"


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
def test_card_gets_the_least_pruned_that_it_holds(ratio: float) -> None:
    ground = GROUNDS["enough"]
    taken = plan_of(ground, presets.best_carry_over(ground, ratio)).memory.train_lora
    assert presets.fits_a_card(ground, taken / GIB)["pruning"]["ratio"] == ratio
    assert presets.fits_a_card(ground, (taken - 1) / GIB)["pruning"]["ratio"] == round(ratio + 0.05, 2)


def test_embeddings_are_in_4_bits_where_pruning_is_not_enough() -> None:
    ground = GROUNDS["no text"]
    least = plan_of(ground, presets.best_carry_over(ground, 0.95)).memory.train_lora
    recipe = presets.fits_a_card(ground, (least - 1) / GIB)
    assert recipe["quantization"] == {"include_embeddings": True}
    assert plan_of(ground, recipe).memory.train_lora < least


def test_card_that_holds_nothing_is_refused_with_what_it_takes() -> None:
    with pytest.raises(RequestFault, match=r"LoRA takes \d+\.\d MiB at least") as refused:
        presets.fits_a_card(GROUNDS["no text"], 0.1)
    assert refused.value.field == "gib"


def test_model_of_few_layers_has_some_left_to_prune() -> None:
    for layers in range(2, 14):
        small = of_layers(layers)
        assert pruned_widths(small.base.geometry, Recipe.model_validate(presets.starting(small)).pruning)


def test_layers_that_keep_the_same_are_one_line() -> None:
    drawn = kept_per_layer(plan_of(GROUNDS["no text"], {"pruning": {"ratio": 0.5, "criterion": "magnitude"}}))
    assert drawn.words == (
        "layers 0–3 keep 3 of 3 KV heads, 1,536 of 1,536 neurons; layers 4–27 keep 2 of 3 KV heads, "
        "768 of 1,536 neurons; layers 28–29 keep 3 of 3 KV heads, 1,536 of 1,536 neurons"
    )
    assert [row.title for row in drawn.rows] == ["KV heads", "neurons"]
    assert drawn.rows[0].whole.count("M") == drawn.rows[0].kept.count("M") == 30
