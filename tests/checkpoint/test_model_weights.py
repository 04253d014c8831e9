from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import quantize_4bit
from huggingface_hub import constants
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from publisher.checkpoint.model_weights import ModelWeights, Repository
from publisher.errors import InfrastructureFault, NotFound, RequestFault
from tests.hub.conftest import RunningHub, hub

__all__ = ["hub"]

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.mark.parametrize("shards", ["5GB", "20KB"])
@pytest.mark.parametrize("tied", [False, True])
def test_weights_are_those_that_transformers_reads(tmp_path: Path, shards: str, tied: bool) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied))
    model.save_pretrained(tmp_path, max_shard_size=shards)
    weights = ModelWeights(tmp_path)
    assert weights.here
    for name, expected in model.state_dict().items():
        assert torch.equal(weights.read(name, "model.embed_tokens.weight"), expected)
    with pytest.raises(RequestFault, match=r"has no model\.nothing\.weight"):
        weights.read("model.nothing.weight")


@pytest.mark.parametrize("columns", [64, 48], ids=["whole blocks", "rows that begin within blocks"])
def test_weight_in_4_bits_is_dequantized(tmp_path: Path, columns: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(32, columns, dtype=torch.bfloat16)
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    beside = {f"lm_head.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
    save_file({"lm_head.weight": packed, **beside}, tmp_path / "model.safetensors")
    read = ModelWeights(tmp_path).read("lm_head.weight")
    assert (read.shape, read.dtype) == (weight.shape, torch.bfloat16)
    assert 0 < (read - weight).abs().max() < 0.6  # half of NF4's widest step, of a block's largest value


def test_folder_without_weights_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert not ModelWeights(tmp_path).here
    with pytest.raises(RequestFault, match=r"has no model\.safetensors"):
        ModelWeights(tmp_path).read("lm_head.weight")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "is not a JSON object"),
        ("{}", "is not an index of weights"),
        ('{"weight_map": {"lm_head.weight": "../other.safetensors"}}', "which is not a file beside it"),
    ],
)
def test_index_that_is_none_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(RequestFault, match=words):
        ModelWeights(tmp_path).read("lm_head.weight")


def test_name_that_no_repository_can_have_is_not_found() -> None:
    with pytest.raises(NotFound, match="neither a folder nor a repository"):
        ModelWeights(Repository("/no/such/folder")).read("lm_head.weight")


def test_hub_that_does_not_answer_is_no_fault_of_the_request() -> None:
    with pytest.raises(InfrastructureFault, match="org/model"):
        ModelWeights(Repository("org/model", endpoint="http://127.0.0.1:9")).read("lm_head.weight")


@pytest.mark.parametrize("shards", ["5GB", "20KB"])
def test_of_a_repository_only_the_files_that_hold_the_weight_are_fetched(
    hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: str
) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    model.save_pretrained(tmp_path / "model", max_shard_size=shards)
    repo = f"alice/weights-{shards.lower()}"
    hub.api("alice").create_repo(repo)
    commit = hub.api("alice").upload_folder(repo_id=repo, folder_path=tmp_path / "model").oid
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    weights = ModelWeights(Repository(repo, commit, hub.endpoint))
    assert not weights.here
    assert torch.equal(weights.read("model.norm.weight"), model.model.norm.weight)
    fetched = [path.name for path in (tmp_path / "cache").rglob("snapshots/**/*.safetensors")]
    assert len(fetched) == 1
    there = [path.name for path in (tmp_path / "model").glob("*.safetensors")]
    assert (len(there) > 1) == (shards == "20KB")
