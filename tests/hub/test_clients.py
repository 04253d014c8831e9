"""The tools that users have, in processes of their own, with nothing but HF_ENDPOINT set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi

MAKE_AND_LOAD = """
import sys, torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                     num_key_value_heads=1, vocab_size=64)
model = LlamaForCausalLM(config)
model.push_to_hub(sys.argv[1], private=True, max_shard_size="8KB")
assert AutoConfig.from_pretrained(sys.argv[1]).hidden_size == 16
loaded = AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = torch.arange(8)[None]
assert torch.equal(loaded(ids).logits, model(ids).logits)
print("same logits")
"""


def test_transformers_pushes_and_loads_a_model(alice: HfApi, client_environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAKE_AND_LOAD, "alice/tiny-llama"],
        env=client_environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "same logits" in done.stdout
    described = alice.model_info("alice/tiny-llama")
    assert described.private
    files = [sibling.rfilename for sibling in described.siblings or []]
    assert "model.safetensors.index.json" in files
    assert described.safetensors is not None
    assert described.safetensors.total == alice.get_safetensors_metadata("alice/tiny-llama").parameter_count["F32"]


def hf(environment: dict[str, str], *arguments: str) -> str:
    """Runs the `hf` command line."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("hf")), *arguments],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_uploads_and_downloads(client_environment: dict[str, str], tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "config.json").write_text(json.dumps({"a": 1}))
    (source / "w.safetensors").write_bytes(bytes(range(256)) * 1000)
    hf(client_environment, "upload", "alice/from-the-shell", str(source), ".")
    hf(client_environment, "download", "alice/from-the-shell", "--local-dir", str(target))
    for name in ("config.json", "w.safetensors"):
        assert (target / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize("unwanted", ["torch", "transformers", "huggingface_hub"])
def test_the_hub_does_not_import_the_heavy_libraries(unwanted: str) -> None:
    script = f"import publisher.hub.router, sys; sys.exit({unwanted!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0
