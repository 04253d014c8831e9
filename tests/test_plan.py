"""The plan against the paper's tables and against arithmetic done by hand."""

import pytest

from publisher.architecture import describe
from publisher.plan import make_plan
from publisher.recipe import Recipe
from tests.architecture.test_geometry import LLAMA_2_13B, LLAMA_2_70B

LLAMA_31_70B = LLAMA_2_70B | {"vocab_size": 128256}
RECIPE = {"pruning": {"criterion": "random", "ratio": 0.85}, "alignment": {"corpora": [{"name": "general"}]}}


def plan_for(config: dict, recipe: dict):
    return make_plan(describe(config), Recipe.model_validate(recipe), flops_per_second=1e12)


def test_the_papers_reduction_is_reported_next_to_the_real_one() -> None:
    plan = plan_for(LLAMA_2_70B, RECIPE)
    assert plan.parameters.pruned == 16_272_924_672
    assert round(plan.reduction.parameters, 2) == 4.24
    assert round(plan.reduction.bytes_ideal, 2) == 16.95
    assert plan.reduction.bytes < plan.reduction.bytes_ideal


def test_real_nf4_of_a_70b_model_is_as_large_as_measured_files() -> None:
    """LLaMA-3.1-70B at 0.85: 15.81 × on paper, 11.4 × in NF4 files whose embeddings stay bf16."""
    plan = plan_for(LLAMA_31_70B, RECIPE)
    assert round(plan.reduction.bytes_ideal, 2) == 15.81
    assert plan.reduction.bytes == pytest.approx(11.4, abs=0.1)


def test_distillation_needs_memory_for_the_teacher() -> None:
    language_model = RECIPE | {"alignment": RECIPE["alignment"] | {"objective": "language_model"}}
    distilled, alone = plan_for(LLAMA_2_13B, RECIPE), plan_for(LLAMA_2_13B, language_model)
    assert distilled.memory.align - alone.memory.align == 2 * 13_015_864_320


def test_no_alignment_costs_nothing() -> None:
    plan = plan_for(LLAMA_2_13B, RECIPE | {"alignment": None})
    assert plan.memory.align is None
    assert "align" not in plan.minutes
    assert plan.align_gpus_80gib is None


def test_training_on_the_checkpoint_needs_less_than_on_the_base() -> None:
    memory = plan_for(LLAMA_2_13B, RECIPE).memory
    assert memory.train_lora < memory.train_lora_on_base / 4
