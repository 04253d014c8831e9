"""Configs that stock transformers takes, and those that need widths by layer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from publisher.architecture.geometry import LayerWidths
from publisher.families.describe import describe
from publisher.recipe.stages import Stage
from tests.architecture.test_widths import LLAMA, MIXTURE
from tests.models import byte_tokenizer
from tests.worker.stages.building import prose, recipe, request_for
from worker.context import RecordingContext
from worker.pruning.config import PER_LAYER, pruned_config
from worker.stages.pipeline import run_pipeline
from worker.storage.store import StageStore

STOCK = (
    "import sys; from transformers import AutoModelForCausalLM;"
    "print(AutoModelForCausalLM.from_pretrained(sys.argv[1]).num_parameters());"
    "assert not any(name.startswith('publisher') for name in sys.modules)"
)
#: one KV head, which cannot be removed
GEMMA = LLAMA | {"model_type": "gemma2", "num_key_value_heads": 1}


@pytest.mark.parametrize("config", [LLAMA, MIXTURE, GEMMA], ids=["llama", "two kinds of layers", "one KV head"])
def test_a_uniform_layout_loads_with_stock_transformers(config: dict[str, Any], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[config["model_type"]](**config))
    model.save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    uniform = recipe(criterion="magnitude", layout="uniform", protect_first=0, protect_last=0)
    request = request_for(tmp_path / "base", prose(tmp_path / "prose.jsonl"), uniform)
    stages = StageStore(tmp_path / "stages")
    pruned = run_pipeline(request, stages, lambda _: RecordingContext(), Stage.PRUNE)[Stage.PRUNE] / "model"
    loaded = subprocess.run([sys.executable, "-c", STOCK, str(pruned)], capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert int(loaded.stdout) == AutoModelForCausalLM.from_pretrained(pruned).num_parameters() < model.num_parameters()


def test_layers_of_different_widths_are_written_by_layer() -> None:
    geometry = describe(LLAMA)
    narrow = LayerWidths(query_heads=2, kv_heads=1, neurons=24)
    widths = (geometry.full_widths[0], narrow, narrow, geometry.full_widths[0])
    config = pruned_config(LLAMA, geometry, widths)
    assert set(config[PER_LAYER]) == {"1", "2"}
    assert config["num_attention_heads"] == 4


def test_heads_that_do_not_divide_the_hidden_size_are_written_by_layer() -> None:
    config = LLAMA | {"num_attention_heads": 8, "num_key_value_heads": 8}
    narrow = LayerWidths(query_heads=5, kv_heads=5, neurons=24)
    assert set(pruned_config(config, describe(config), [narrow] * 4)[PER_LAYER]) == {"0", "1", "2", "3"}
