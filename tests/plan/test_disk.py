"""Room on the disk, beside what stages of a real build take there."""

from __future__ import annotations

from pathlib import Path

from publisher.families.describe import describe
from publisher.plan.disk import disk_bytes
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from tests.architecture.test_geometry import LLAMA_2_13B
from tests.models import tiny_llama
from tests.worker.stages.building import PRUNING, prose, recipe, request_for
from worker.context import RecordingContext
from worker.stages.pipeline import run_pipeline
from worker.storage.store import StageStore
from worker.streaming.weights import read_geometry


def test_a_13b_model_s_stages_take_what_their_files_do() -> None:
    wanted = Recipe.model_validate(
        {
            "pruning": PRUNING | {"ratio": 0.65, "protect_first": 4, "protect_last": 2},
            "alignment": {"corpora": [{"name": "c"}]},
            "quantization": {"scheme": "nf4"},
        }
    )
    needed = disk_bytes(describe(LLAMA_2_13B), wanted, 26_031_000_000)
    assert needed[Stage.FETCH] == 26_031_000_000
    assert needed[Stage.PRUNE] == 6_005_662_720 * 2
    # bf16, and of nearly all weights two states of weight and two moments in fp32
    assert 6e9 * (2 + 2 * 12) * 0.95 < needed[Stage.ALIGN] < 6.01e9 * (2 + 2 * 12)
    assert 6e9 / 2 < needed[Stage.QUANTIZE] < 6e9 * 2


def test_what_prune_writes_is_what_was_foreseen(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base", hidden_size=64, intermediate_size=256, num_hidden_layers=6)
    request = request_for(base, prose(tmp_path / "prose.jsonl"), recipe(criterion="magnitude", calibration=None))
    folders = run_pipeline(request, StageStore(tmp_path / "stages"), lambda stage: RecordingContext(), Stage.PRUNE)
    written = sum(path.stat().st_size for path in folders[Stage.PRUNE].rglob("*") if path.is_file())
    files = sum(path.stat().st_size for path in base.iterdir())
    needed = disk_bytes(read_geometry(base), request.recipe, files)[Stage.PRUNE]
    assert 0.8 * needed < written < 1.2 * needed


def test_stages_that_only_link_take_nothing() -> None:
    needed = disk_bytes(describe(LLAMA_2_13B), recipe(), 0)
    assert Stage.PACKAGE not in needed
    assert Stage.QUANTIZE not in needed
    assert Stage.ALIGN not in needed
