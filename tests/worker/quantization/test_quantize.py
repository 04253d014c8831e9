from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import publisher.checkpoint  # noqa: F401 - layers of different widths
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from tests.models import tiny_llama
from worker.context import RecordingContext
from worker.quantization.nf4 import NF4, load_published, quantize_nf4
from worker.quantization.packing import round_trip
from worker.quantization.streamed import four_bit_names
from worker.request import BaseModelSource, BuildRequest
from worker.stages import quantize
from worker.stages.inputs import QuantizeInputs

TOKENS = torch.arange(24).view(2, 12)


def _request(scheme: str) -> BuildRequest:
    recipe = {"pruning": {"ratio": 0.5, "criterion": "random"}, "quantization": {"scheme": scheme}}
    return BuildRequest(
        base=BaseModelSource(repo_id="a/base", revision="0"), recipe=Recipe.model_validate(recipe), corpora={}
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Layers of different widths, wide enough that 4 bits are worth it."""
    return tiny_llama(
        tmp_path / "in",
        hidden_size=128,
        intermediate_size=320,
        head_dim=32,
        initializer_range=0.05,
        dtype=torch.bfloat16,
        per_layer_config={"1": {"intermediate_size": 192}},
    )


def _quantized(model: Path, output: Path, scheme: str) -> Path:
    output.mkdir()
    quantize.run(
        _request(scheme),
        QuantizeInputs(model=model, masks=model / "pruning_masks.safetensors"),
        output,
        RecordingContext(),
    )
    return output / "model"


@torch.no_grad()
def _logits(folder: Path, **options: object) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, **options)
    logits: Tensor = model(TOKENS).logits
    return logits


def test_reloaded_checkpoint_gives_the_logits_of_the_quantized_model(model: Path, tmp_path: Path) -> None:
    saved = _quantized(model, tmp_path / "out", "nf4")
    assert torch.equal(_logits(saved), _logits(model, quantization_config=NF4))


def test_files_hold_four_bits_with_doubly_quantized_scales(model: Path, tmp_path: Path) -> None:
    saved = _quantized(model, tmp_path / "out", "nf4")
    with safe_open(saved / "model.safetensors", framework="pt") as file:
        packed = file.get_tensor("model.layers.0.mlp.up_proj.weight")
        names = set(file.keys())
    assert (packed.dtype, packed.numel()) == (torch.uint8, 320 * 128 // 2)
    assert "model.layers.0.mlp.up_proj.weight.nested_absmax" in names
    config = AutoModelForCausalLM.from_pretrained(saved).config.quantization_config
    assert isinstance(config, BitsAndBytesConfig)
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)


def test_published_model_computes_in_the_device_s_best_dtype_with_the_same_weights(model: Path, tmp_path: Path) -> None:
    saved = _quantized(model, tmp_path / "out", "nf4")
    published = load_published(saved, "cpu")
    with torch.no_grad():
        found = published(TOKENS).logits
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, _logits(saved).float(), rtol=0.05, atol=0.05)


def test_scheme_none_keeps_the_files_without_taking_space(model: Path, tmp_path: Path) -> None:
    saved = _quantized(model, tmp_path / "out", "none")
    assert {path.name for path in saved.iterdir()} == {path.name for path in model.iterdir()}
    assert all((saved / path.name).samefile(path) for path in model.iterdir())


def test_digest_depends_on_model_and_scheme() -> None:
    digests = {
        quantize.digest(_request("nf4"), {Stage.PRUNE: "a"}),
        quantize.digest(_request("nf4"), {Stage.PRUNE: "b"}),
        quantize.digest(_request("none"), {Stage.PRUNE: "a"}),
    }
    assert len(digests) == 3


def test_only_the_missing_kernel_goes_unsaid(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "No module named 'kernels'")
    logger.warning("something else")
    assert caplog.messages == ["something else"]


@pytest.mark.long
def test_nothing_is_said_of_more_widths_than_torch_compiles() -> None:
    program = """
import worker
import torch
import bitsandbytes
from bitsandbytes.nn import Params4bit

torch._dynamo.config.recompile_limit = 1
for width in (75, 77, 81):
    packed = Params4bit(torch.ones(64, width), quant_type="nf4", requires_grad=False).to("cpu")
    bitsandbytes.functional.dequantize_4bit(packed.data, packed.quant_state)


@torch.compile(dynamic=False, backend="eager")
def twice(values):
    return values + values


for width in (75, 77, 81):
    twice(torch.ones(width))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "function: 'twice'" in done.stderr, "other functions' limits are said"
    assert "_dequantize_4bit_compute" not in done.stderr


def test_quantizing_says_nothing_on_standard_error() -> None:
    program = "import worker.quantization.nf4, peft"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@torch.no_grad()
def test_published_model_runs_with_the_odd_widths_that_pruning_leaves(tmp_path: Path) -> None:
    odd = tiny_llama(tmp_path / "in", hidden_size=64, intermediate_size=75, dtype=torch.bfloat16)
    saved = _quantized(odd, tmp_path / "out", "nf4")
    published, dense = load_published(saved, "cpu"), AutoModelForCausalLM.from_pretrained(odd, dtype=torch.float32)
    for name, module in published.named_modules():
        if isinstance(module, Linear4bit):
            state = module.weight.quant_state
            state.dtype = torch.float32
            weight = dequantize_4bit(module.weight.data, state)
            dense.get_submodule(name).weight.copy_(weight)
    torch.testing.assert_close(published(TOKENS).logits, dense(TOKENS).logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("width", [27, 48, 64, 80, 128])
@torch.no_grad()
def test_any_width_computes_with_the_published_values(tmp_path: Path, width: int) -> None:
    """bitsandbytes on a CPU takes rows of 48 or 80 weights for others than they are."""
    folder = tiny_llama(tmp_path / "model", dtype=torch.bfloat16, intermediate_size=width)
    quantize_nf4(folder, tmp_path / "published", "cpu")
    wanted = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    names = four_bit_names(folder, NF4)
    for name, weight in wanted.named_parameters():
        if name in names:
            weight.copy_(round_trip(weight))
    found = load_published(tmp_path / "published", "cpu")
    logits, expected = found(TOKENS).logits.float(), wanted(TOKENS).logits
    assert (logits - expected).abs().max() <= 0.02 * expected.abs().max()
