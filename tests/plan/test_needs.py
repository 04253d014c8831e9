"""What a job needs: the stages' own estimates, and what a GPU is for."""

from __future__ import annotations

from typing import Any

from publisher.architecture.widths import pruned_widths
from publisher.families.describe import describe
from publisher.plan.align import Machine, align_memory
from publisher.plan.needs import Needs
from publisher.plan.plan import make_plan, needs_of_recipe
from publisher.recipe import Recipe
from tests.architecture.test_geometry import LLAMA_2_13B

GEOMETRY = describe(LLAMA_2_13B)
TEXT = {"corpora": [{"name": "general"}]}


def recipe(criterion: str = "random", method: str = "structured", **parts: Any) -> Recipe:
    pruning: dict[str, Any] = {"method": method, "criterion": criterion, "ratio": 0.65}
    if criterion not in {"random", "magnitude"}:
        pruning["calibration"] = {"corpus": "general"}
    return Recipe.model_validate({"pruning": pruning} | parts)


def needs(asked: Recipe, *, is_local: bool = False) -> Needs:
    return needs_of_recipe(GEOMETRY, asked, base_bytes=2 * GEOMETRY.parameters(), is_local=is_local)


def test_the_most_over_the_stages_is_what_a_worker_has_to_hold() -> None:
    asked = recipe(alignment=TEXT, evaluation={"corpora": ["general"]})
    found = needs(asked)
    memory = align_memory(GEOMETRY, pruned_widths(GEOMETRY, asked.pruning), asked)
    assert memory is not None
    assert found.stages["align"].gpu_bytes == memory.total == found.gpu_bytes
    assert found.several is not None
    assert found.several.on(Machine.GPU, 3) == memory.on(3)


def test_a_model_that_is_only_measured_is_in_memory_whole() -> None:
    found = needs(recipe(evaluation={"corpora": ["general"]}))
    assert 2 * GEOMETRY.parameters() < found.gpu_bytes < 2.1 * GEOMETRY.parameters()
    assert found.cpu_bytes > 4 * GEOMETRY.parameters(), "a CPU computes in fp32"


def test_what_only_prunes_holds_a_layer_at_a_time() -> None:
    assert needs(recipe()).gpu_bytes < GEOMETRY.parameters() / 5


def test_a_gpu_is_for_what_computes() -> None:
    assert not needs(recipe()).gpu
    assert not needs(recipe("magnitude")).gpu
    assert needs(recipe("taylor")).gpu
    assert needs(recipe(alignment=TEXT)).gpu
    assert {stage for stage, need in needs(recipe("taylor", alignment=TEXT)).stages.items() if need.gpu} == {
        "calibrate",
        "align",
    }


def test_weights_are_scored_while_they_are_pruned() -> None:
    found = needs(recipe("wanda", method="unstructured"))
    assert [stage for stage, need in found.stages.items() if need.gpu] == ["prune"]


def test_recipes_for_one_device_say_so() -> None:
    assert needs(recipe(alignment=TEXT | {"optimizer": "muon"})).several is None


def test_a_local_folder_is_not_copied() -> None:
    asked = recipe()
    assert needs(asked).disk_bytes - needs(asked, is_local=True).disk_bytes == 2 * GEOMETRY.parameters()


def test_a_plan_has_the_needs_of_its_job() -> None:
    asked = recipe("taylor", alignment=TEXT)
    plan = make_plan(GEOMETRY, asked, base_bytes=2 * GEOMETRY.parameters(), flops_per_second=1e12)
    assert plan.needs == needs(asked)
