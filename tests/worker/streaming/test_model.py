"""A streamed forward is the model's own forward, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from publisher.errors import RequestFault
from tests.devices import each_device
from tests.models import tiny_llama
from tests.worker.streaming.families import FAMILIES, save_tiny
from worker.streaming.capture import call_layer
from worker.streaming.model import LayerStream

TOKENS = torch.randint(0, 320, (3, 17), generator=torch.Generator().manual_seed(1))
#: of a GPU's fp32 and a CPU's
NEAR = {"cpu": 1e-5, "cuda": 1e-4}


@each_device
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("stored", "max_shard_size"), [(torch.float32, "5GB"), (torch.bfloat16, "20KB")])
def test_streamed_logits_are_the_models_own(
    tmp_path: Path, family: str, stored: torch.dtype, max_shard_size: str, device: str
) -> None:
    folder = save_tiny(family, tmp_path, dtype=stored, max_shard_size=max_shard_size)
    with torch.no_grad():
        own = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(TOKENS).logits
    stream = LayerStream(folder, device)
    for _ in range(2):  # the second time in memory that was used before
        found = stream.streamed_logits(TOKENS).cpu()
        torch.testing.assert_close(found, own, rtol=NEAR[device], atol=NEAR[device])


@each_device
def test_weights_that_are_emptied_are_not_overwritten_before_they_were_used(tmp_path: Path, device: str) -> None:
    """On a GPU the computation may lag behind those who ask for it: here by a second."""
    stream = LayerStream(tiny_llama(tmp_path, vocab_size=4096, hidden_size=256), device)
    wanted = stream.inputs(TOKENS).hidden.clone()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda._sleep(2_000_000_000)  # cycles
    found = stream.inputs(TOKENS).hidden
    for index in range(stream.layers):
        with stream.layer(index, ahead=index + 1):
            pass
    assert torch.equal(found, wanted)


def test_head_gives_the_logits_of_chosen_positions_and_gradients(tmp_path: Path) -> None:
    stream = LayerStream(save_tiny("gemma2", tmp_path), "cpu")
    hidden = torch.randn(3, 17, 32, requires_grad=True)
    with stream.head() as head:
        whole, chosen = head(TOKENS, hidden), head(TOKENS, hidden, torch.tensor([2, 5]))
    torch.testing.assert_close(chosen, whole[:, [2, 5]])
    (gradient,) = torch.autograd.grad(chosen.sum(), hidden)
    assert gradient[:, [2, 5]].abs().sum() > 0
    assert gradient[:, [0, 1, 3, 4]].abs().sum() == 0


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_weights_are_there_only_within_their_layer(tmp_path: Path, family: str) -> None:
    stream = LayerStream(save_tiny(family, tmp_path), "cpu")

    def present() -> set[str]:
        parameters = stream.skeleton.named_parameters(remove_duplicate=False)
        return {name for name, parameter in parameters if parameter.device.type != "meta"}

    inputs = stream.inputs(TOKENS)
    assert present() == set()
    with stream.layer(1) as layer:
        assert present() == {f"model.layers.1.{name}" for name, _ in layer.named_parameters()}
        call_layer(layer, inputs.hidden, inputs.arguments[1])
    assert present() == set()
    with stream.outside():
        stream.inputs(TOKENS)
        assert present() == {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    assert present() == set()


def test_written_weights_hold_until_the_layer_is_left_and_never_reach_the_file(tmp_path: Path) -> None:
    stream = LayerStream(tiny_llama(tmp_path), "cpu")
    before = (tmp_path / "model.safetensors").read_bytes()
    with stream.layer(0) as layer:
        weight = layer.get_parameter("mlp.up_proj.weight")
        original = weight.clone()
        weight.zero_()
        assert layer.get_parameter("mlp.up_proj.weight").abs().sum() == 0
    with stream.layer(0) as layer:
        assert torch.equal(layer.get_parameter("mlp.up_proj.weight"), original)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_fused_experts_are_traced_to_their_tensors(tmp_path: Path) -> None:
    stream = LayerStream(save_tiny("mixtral", tmp_path), "cpu")
    names = stream.stored(0, "mlp.experts.down_proj")
    assert len(names) == 4
    assert all(name.startswith("model.layers.0.") and "experts" in name for name in names)
    assert stream.stored(2, "self_attn.q_proj.weight") == ["model.layers.2.self_attn.q_proj.weight"]


def test_masks_of_sliding_windows_reach_their_layers(tmp_path: Path) -> None:
    inputs = LayerStream(save_tiny("gemma2", tmp_path), "cpu").inputs(TOKENS)
    seen = [int((arguments.named["attention_mask"][0, 0] >= 0).sum()) for arguments in inputs.arguments]
    assert seen[0] == seen[2] < seen[1] == seen[3]


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    tiny_llama(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.2.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestFault, match=r"model\.layers\.2\.mlp\.up_proj\.weight"):
        LayerStream(tmp_path, "cpu")


def test_a_tensor_of_another_shape_is_named_with_its_file(tmp_path: Path) -> None:
    tiny_llama(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"] = torch.zeros(5, 32)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    stream = LayerStream(tmp_path, "cpu")
    with (
        pytest.raises(RequestFault, match=r"layers\.2\.mlp\.up_proj\.weight in model\.safetensors has shape \(5, 32\)"),
        stream.layer(2),
    ):
        pass


def test_truncated_and_missing_shards_are_named(tmp_path: Path) -> None:
    tiny_llama(tmp_path, max_shard_size="20KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(RequestFault, match=f"{shard.name} of the base model is damaged"):
        LayerStream(tmp_path, "cpu")
    shard.unlink()
    with pytest.raises(RequestFault, match=f"{shard.name} of the base model is missing"):
        LayerStream(tmp_path, "cpu")


def test_a_shard_that_is_replaced_while_it_is_used_is_named(tmp_path: Path) -> None:
    tiny_llama(tmp_path)
    stream = LayerStream(tmp_path, "cpu")
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(RequestFault, match=r"model\.safetensors of the base model is damaged"), stream.layer(0):
        pass


def test_layers_of_different_widths_stream_too(tmp_path: Path) -> None:
    narrow = {"1": {"intermediate_size": 24}, "2": {"num_attention_heads": 2, "num_key_value_heads": 1}}
    folder = tiny_llama(tmp_path, per_layer_config=narrow, head_dim=8)
    with torch.no_grad():
        own = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(TOKENS).logits
    torch.testing.assert_close(LayerStream(folder, "cpu").streamed_logits(TOKENS), own, rtol=1e-5, atol=1e-5)
