"""What was planned is what comes out: parameters to the digit, bytes of tensors to the byte, for every strategy."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from publisher.base_model.facts import inspect_folder
from publisher.manifest.manifest import Manifest
from publisher.plan.plan import make_plan
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from tests.architecture.test_widths import MIXTURE
from tests.models import byte_tokenizer, tiny_llama
from tests.worker.stages.building import PRUNING, prose, request_for
from worker.context import RecordingContext
from worker.stages.pipeline import run_pipeline
from worker.storage.store import StageStore

STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {"criterion": "random", "ratio": 0.3},
    "taylor, one threshold": {"scope": "global", "ratio": 0.65},
    "wanda, rounded": {"criterion": "wanda", "round_to": 8, "ratio": 0.6},
    "magnitude, stock layout": {"criterion": "magnitude", "layout": "uniform", "protect_first": 0, "protect_last": 0},
    "2:4": {"method": "semi_structured", "criterion": "sparsegpt"},
    "4:8, compressed": {"method": "semi_structured", "pattern": "4:8", "criterion": "wanda", "storage": "compressed"},
    "unstructured": {"method": "unstructured", "criterion": "magnitude", "ratio": 0.37},
    "unstructured, compressed": {
        "method": "unstructured",
        "criterion": "sparsegpt",
        "ratio": 0.61,
        "storage": "compressed",
    },
}


@pytest.fixture(scope="module", params=["llama", "mixture"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "llama":
        return tiny_llama(folder, dtype=torch.bfloat16)
    torch.manual_seed(0)
    Qwen3MoeForCausalLM(Qwen3MoeConfig(**MIXTURE)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_checkpoint_has_the_parameters_and_bytes_of_its_plan(base: Path, strategy: str, tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"pruning": PRUNING | STRATEGIES[strategy], "quantization": {"scheme": "none"}})
    facts = inspect_folder(base)
    plan = make_plan(facts.geometry, recipe, base_bytes=facts.bytes, flops_per_second=1e12)
    request = request_for(base, prose(tmp_path / "prose.jsonl"), recipe)
    stages = StageStore(tmp_path / "stages")
    checkpoint = run_pipeline(request, stages, lambda _: RecordingContext(), Stage.PACKAGE)[Stage.PACKAGE]
    manifest = Manifest.read(checkpoint)
    assert (manifest.parameters.base, manifest.parameters.pruned) == (plan.parameters.base, plan.parameters.pruned)
    files = [*checkpoint.glob("model*.safetensors")]
    if recipe.pruning.method != "structured":
        files.append(checkpoint / "pruning_masks.safetensors")
    assert sum(map(tensor_bytes, files)) == plan.bytes.checkpoint


@pytest.mark.parametrize("include_embeddings", [False, True])
def test_a_quantized_checkpoint_has_the_bytes_of_its_plan(base: Path, include_embeddings: bool, tmp_path: Path) -> None:
    quantization = {"scheme": "nf4", "include_embeddings": include_embeddings}
    recipe = Recipe.model_validate({"pruning": PRUNING | STRATEGIES["random"], "quantization": quantization})
    facts = inspect_folder(base)
    plan = make_plan(facts.geometry, recipe, base_bytes=facts.bytes, flops_per_second=1e12)
    request = request_for(base, prose(tmp_path / "prose.jsonl"), recipe)
    stages = StageStore(tmp_path / "stages")
    checkpoint = run_pipeline(request, stages, lambda _: RecordingContext(), Stage.PACKAGE)[Stage.PACKAGE]
    assert sum(map(tensor_bytes, checkpoint.glob("model*.safetensors"))) == plan.bytes.checkpoint


def test_with_one_budget_for_heads_and_neurons_no_more_goes_than_is_planned_nor_much_less(
    base: Path, tmp_path: Path
) -> None:
    pruning = PRUNING | {"scope": "joint", "ratio": 0.4}
    recipe = Recipe.model_validate({"pruning": pruning, "quantization": {"scheme": "none"}})
    geometry = inspect_folder(base).geometry
    plan = make_plan(geometry, recipe, base_bytes=0, flops_per_second=1e12)
    assert any("scope joint" in note for note in plan.notes)
    request = request_for(base, prose(tmp_path / "prose.jsonl"), recipe)
    stages = StageStore(tmp_path / "stages")
    checkpoint = run_pipeline(request, stages, lambda _: RecordingContext(), Stage.PACKAGE)[Stage.PACKAGE]
    pruned = Manifest.read(checkpoint).parameters.pruned
    one_layer = (geometry.parameters() - sum(map(prod, geometry.outside.values()))) // geometry.layers
    assert plan.parameters.pruned <= pruned < min(plan.parameters.base, plan.parameters.pruned + one_layer // 4)


def tensor_bytes(path: Path) -> int:
    """Without the header, and without bitsandbytes' notes in JSON, whose length no plan can know."""
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if "quant_state" not in name]  # noqa: SIM118 - no mapping
        return sum(file.get_tensor(name).nbytes for name in names)
