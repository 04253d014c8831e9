"""A new criterion, like a new optimizer, is one new file and one word of an enum: tried on a copy of the tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from tests.models import tiny_llama
from tests.worker.stages.building import prose

ROOT = Path(__file__).parents[3]

#: keeps what matters least, by its weights' absolute values: no other criterion could be taken for it
SMALLNESS = '''
"""Smallness."""
from typing import Any

from publisher.recipe.criteria.spec import (
    Comparison, Criterion, CriterionSpec, InputStatistic, UnitScoring, WeightPruning,
)


def score_units(work: Any) -> Any:
    return work.sums_by_inputs(lambda weights, norms: weights.abs_().neg_())


def prune(weights: Any, inputs: Any, sparsity: Any) -> Any:
    assert inputs.shape == weights[0].shape[1:]
    return [sparsity.without_smallest(weight, 1 / (1 + weight.abs()), of_rows=True) for weight in weights]


SMALLNESS = CriterionSpec(
    name=Criterion.SMALLNESS,
    words="how small weights are, which nobody should do",
    reads_text=True,
    units=UnitScoring(score=f"{__name__}:score_units", compared=Comparison.WITHIN_LAYER, readings=1, operations=3),
    weights=WeightPruning(prune=f"{__name__}:prune", inputs=InputStatistic.SQUARES, operations=6),
)
'''

DESCENT = '''
"""Gradient descent."""
from math import prod

from publisher.recipe.optimizers.spec import Optimizer, OptimizerSpec

DESCENT = OptimizerSpec(
    name=Optimizer.DESCENT,
    words="gradient descent with momentum",
    made_by="torch.optim:SGD",
    options={"momentum": 0.9},
    state_bytes=lambda shape, rank: 4 * prod(shape),
)
'''

#: plans and builds; prints what was planned and where the checkpoints are
BUILD = """
import json, sys
from pathlib import Path
from publisher.recipe import Criterion, PruningMethod, Recipe
from publisher.recipe.criteria.register import criteria_for
import publisher.plan.plan
assert "torch" not in sys.modules, "the API plans without it"
from publisher.plan.plan import make_plan
from publisher.base_model.facts import inspect_folder
from tests.worker.stages.building import PRUNING, request_for
from worker.context import RecordingContext
from worker.stages.pipeline import run_pipeline
from worker.storage.store import StageStore
from publisher.recipe.stages import Stage

work = Path(sys.argv[1])
geometry = inspect_folder(work / "base").geometry
ALIGNMENT = {"corpora": ["prose"], "tokens": 128, "sequence_length": 32, "batch_tokens": 64, "reconstruction_tokens": 0,
             "objective": "language_model", "learning_rate": 1e-9}

def recipe(optimizer=None, **pruning):
    alignment = {"alignment": ALIGNMENT | {"optimizer": optimizer}} if optimizer else {}
    return Recipe.model_validate({"pruning": PRUNING | pruning, "quantization": {"scheme": "none"}} | alignment)

def plan(wanted):
    # so slow that minutes are not rounded to nothing
    return make_plan(geometry, wanted, flops_per_second=1e4).model_dump()

def build(wanted):
    request = request_for(work / "base", work / "prose.jsonl", wanted)
    folders = run_pipeline(request, StageStore(work / "stages"), lambda stage: RecordingContext(), Stage.PACKAGE)
    return str(folders[Stage.PACKAGE])

units = recipe("descent", criterion="smallness")
weights = recipe(method="unstructured", criterion="smallness")
print(json.dumps({
    "units": build(units),
    "weights": build(weights),
    "plans": {name: plan(recipe("descent", criterion=name)) for name in ("smallness", "wanda", "magnitude")}
    | {"adamw": plan(recipe("adamw", criterion="smallness"))}
    | {f"weights of {name}": plan(recipe(method="unstructured", criterion=name)) for name in ("smallness", "wanda")},
    "for weights": [spec.name for spec in criteria_for(PruningMethod.UNSTRUCTURED)],
    "described": Recipe.model_json_schema()["$defs"]["Pruning"]["properties"]["criterion"]["description"],
}))
"""


def with_word(path: Path, after: str, word: str) -> None:
    """Add a word to an enum, as a person would."""
    text = path.read_text()
    assert text.count(after) == 1
    path.write_text(text.replace(after, f'{after}    {word.upper()} = "{word}"\n'))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree with one file and one word more for each."""
    tree = tmp_path_factory.mktemp("tree")
    for package in ("publisher", "worker"):
        shutil.copytree(ROOT / package, tree / package)
    recipe = tree / "publisher/recipe"
    (recipe / "criteria/smallness.py").write_text(SMALLNESS)
    with_word(recipe / "criteria/spec.py", '    RANDOM = "random"\n', "smallness")
    (recipe / "optimizers/descent.py").write_text(DESCENT)
    with_word(recipe / "optimizers/spec.py", '    LOTUS = "lotus"\n', "descent")
    return tree


@pytest.fixture(scope="module")
def said(extended: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    work = tmp_path_factory.mktemp("work")
    tiny_llama(work / "base")
    prose(work / "prose.jsonl")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(work)],
        cwd=extended,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(extended), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"base": work / "base"}  # type: ignore[no-any-return]


def weights_of(said: dict[str, Any]) -> dict[str, Tensor]:
    return load_file(said["base"] / "model.safetensors")


def test_units_stay_by_the_new_criterion(said: dict[str, Any]) -> None:
    base, masks = weights_of(said), load_file(Path(said["units"]) / "pruning_masks.safetensors")
    for layer in (1, 2):
        mlp = {name: base[f"model.layers.{layer}.mlp.{name}_proj.weight"].abs() for name in ("gate", "up", "down")}
        sizes = mlp["gate"].sum(1) + mlp["up"].sum(1) + mlp["down"].sum(0)
        smallest = sizes.sort().indices[:24].sort().values
        assert masks[f"model.layers.{layer}.mlp.kept_neurons"].tolist() == smallest.tolist()


def test_weights_stay_by_the_new_criterion(said: dict[str, Any]) -> None:
    base, pruned = weights_of(said), load_file(Path(said["weights"]) / "model.safetensors")
    for projection in ("self_attn.q_proj", "mlp.down_proj"):
        name = f"model.layers.1.{projection}.weight"
        smallest = base[name].abs().sort(dim=1).indices[:, : base[name].shape[1] // 2]
        kept = base[name].new_zeros(base[name].shape).scatter(1, smallest, base[name].gather(1, smallest))
        assert (pruned[name] == kept).all()


def test_the_card_says_by_what_it_was_chosen(said: dict[str, Any]) -> None:
    for build in ("units", "weights"):
        card = (Path(said[build]) / "README.md").read_text()
        assert "chosen by how small weights are, which nobody should do" in card
        assert "prose" in card


def test_the_new_optimizer_aligned(said: dict[str, Any]) -> None:
    manifest = json.loads((Path(said["units"]) / "loram.json").read_text())
    assert manifest["alignment"]["optimizer"] == "descent"
    trained = manifest["parameters"]["pruned"] - 320 * 32  # the LM head is frozen
    assert manifest["alignment"]["optimizer_state_bytes"] == 4 * trained


def test_the_plan_counts_what_was_declared(said: dict[str, Any]) -> None:
    plans = said["plans"]
    scoring = {name: plans[name]["minutes"]["calibrate"] for name in ("smallness", "wanda", "magnitude")}
    reading = scoring["magnitude"]
    assert scoring["smallness"] - reading == pytest.approx(1.5 * (scoring["wanda"] - reading), rel=0.01)
    weights = {name: plans[f"weights of {name}"]["minutes"]["prune"] for name in ("smallness", "wanda")}
    assert weights["smallness"] == pytest.approx(1.5 * weights["wanda"], rel=0.01)
    trained = plans["adamw"]["parameters"]["pruned"] - 320 * 32
    states = {name: plans[name]["memory"]["align_states"] for name in ("adamw", "smallness")}
    assert states["adamw"] - states["smallness"] == 4 * trained


def test_recipes_and_their_reference_name_it(said: dict[str, Any]) -> None:
    assert said["for weights"] == ["sparsegpt", "wanda", "magnitude", "smallness"]
    assert "smallness (structured, semi_structured and unstructured): how small weights are" in said["described"]
