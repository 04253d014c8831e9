"""What transformers may lack, or have one day: asked for by name when the loader is registered, and tested by taking it
away and by planting it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import transformers

from publisher.loading.transformers_features import SUPPORTED, refuse_unsupported_transformers
from tests.checkpoint.pruned import make_pair

TOKENS = torch.arange(24).reshape(2, 12) % 64
#: what transformers' pull request 45332 does, in few lines: it names the layer class of models that it knows, and has
#: that class build each layer from its own config
PLANTED = """
import transformers.integrations.heterogeneity as heterogeneity
from transformers.models.llama.modeling_llama import LlamaDecoderLayer as Layer

built, plain = [], Layer.__init__

def init(self, config, layer_idx):
    built.append(config.is_heterogeneous)
    plain(self, config.per_layer_config[layer_idx] if KNOWS else config, layer_idx)

def get_heterogeneous_modeling_spec(model):
    assert model.config.model_type == "llama"
    return Layer if KNOWS else None

Layer.__init__ = init
heterogeneity.get_heterogeneous_modeling_spec = get_heterogeneous_modeling_spec
"""
#: first a model that it knows, then one that it leaves alone
LOAD = """
import sys, torch
import publisher.checkpoint
from transformers import AutoModelForCausalLM

for KNOWS in (True, False):
    built.clear()
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
    torch.save(model(torch.arange(24).reshape(2, 12) % 64).logits, f"{sys.argv[2]}-{KNOWS}")
    print(KNOWS, set(built), Layer.__init__ is not init)
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_layers_that_transformers_builds_itself_are_left_to_it(tmp_path: Path) -> None:
    pruned = make_pair().pruned.float()
    pruned.save_pretrained(tmp_path / "pruned")
    done = run(f"{PLANTED}\n{LOAD}", tmp_path / "pruned", tmp_path / "logits")
    assert done.returncode == 0, done.stderr
    # where it knows the model it is given the config of all layers, and nothing of ours stands before it
    assert done.stdout.splitlines() == ["True {True} False", "False {False} True"]
    for knows in (True, False):
        logits = torch.load(tmp_path / f"logits-{knows}")
        torch.testing.assert_close(logits, pruned(TOKENS).logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("owner", "attribute"),
    [
        ("transformers.modeling_utils.PreTrainedModel", "set_attn_implementation"),
        ("transformers.core_model_loading", "WeightConverter"),
        ("transformers.core_model_loading.WeightTransform", "was_used"),
        ("transformers.quantizers.base.HfQuantizer", "update_weight_conversions"),
    ],
)
def test_what_transformers_lacks_is_named_when_the_loader_is_registered(
    monkeypatch: pytest.MonkeyPatch, owner: str, attribute: str
) -> None:
    refuse_unsupported_transformers()
    monkeypatch.delattr(f"{owner}.{attribute}")
    with pytest.raises(ImportError) as raised:
        refuse_unsupported_transformers()
    said = str(raised.value)
    assert said.startswith(f"publisher.checkpoint works with {SUPPORTED}; {transformers.__version__} is installed, ")
    lacking = f"{owner}.{attribute}".replace("WeightTransform", "WeightConverter")  # which inherits it
    assert f"has no {lacking}. Run `pip install '{SUPPORTED}'`" in said


def test_supported_versions_are_those_that_the_package_asks_for() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert SUPPORTED in project["optional-dependencies"]["train"]
