"""Embeddings and LM head in 4 bits: loaded, trained on, generated with and saved like any 4-bit model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from torch import Tensor
from transformers import AutoModelForCausalLM, Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM, PreTrainedModel

import publisher.checkpoint  # noqa: F401 - embeddings in 4 bits
from publisher.loading.four_bit_everywhere import FourBitEverywhereConfig
from publisher.loading.four_bit_modules import FourBitTable, dense, rows_of
from tests.devices import each_device
from tests.models import TINY, tiny_llama
from tests.worker.quantization.test_streamed import assert_same, tensors
from tests.worker.streaming.families import save_tiny
from worker.models.causal import hidden_states
from worker.models.head import head_of
from worker.models.measure import compute_dtype
from worker.quantization.nf4 import load_published, quantize_nf4, quantize_whole

TOKENS = torch.arange(24).view(2, 12)


def _with_head_bias(folder: Path) -> Path:
    config = Ernie4_5_MoeConfig(
        **(TINY | {"num_hidden_layers": 2, "head_dim": 8, "pad_token_id": 0, "use_bias": True}),
        moe_num_experts=4,
        moe_k=2,
        moe_intermediate_size=24,
        tie_word_embeddings=True,
    )
    model = Ernie4_5_MoeForCausalLM(config)
    model.lm_head.bias.data.normal_()
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


MODELS: dict[str, Callable[[Path], Path]] = {
    "untied": lambda folder: tiny_llama(folder, hidden_size=64, head_dim=16),
    "tied": lambda folder: tiny_llama(folder, hidden_size=64, head_dim=16, tie_word_embeddings=True),
    "rows within blocks": lambda folder: tiny_llama(folder, intermediate_size=37, tie_word_embeddings=True),
    "scaled embeddings": lambda folder: save_tiny("gemma3", folder, dtype=torch.bfloat16),
    "experts": lambda folder: save_tiny("mixtral", folder, dtype=torch.bfloat16),
    "tied head with a bias": _with_head_bias,
    "packed": lambda folder: save_tiny("phi3", folder, dtype=torch.bfloat16),
}


#: the others are of the same code, in other sizes
_SHORT = ("untied", "tied", "experts", "tied head with a bias")


@pytest.fixture(params=[pytest.param(name, marks=[] if name in _SHORT else [pytest.mark.long]) for name in MODELS])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return MODELS[request.param](tmp_path / "base")


@pytest.fixture
def quantized(base: Path, tmp_path: Path) -> Path:
    quantize_nf4(base, tmp_path / "nf4", "cpu", include_embeddings=True)
    return tmp_path / "nf4"


def dense_twin(model: PreTrainedModel, base: Path) -> PreTrainedModel:
    """The base model in fp32 with the values that 4 bits left of its weights."""
    dense: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for name, module in model.named_modules():
        for key, weight in module.named_parameters(recurse=False):
            dense.get_submodule(name).get_parameter(key).data.copy_(dequantized(weight))
    return dense


def dequantized(weight: Tensor) -> Tensor:
    if weight.is_floating_point():
        return weight.data
    return dense(weight, torch.float32)


def test_no_matrix_but_those_of_experts_and_their_router_stays_in_bf16(quantized: Path) -> None:
    stored = tensors(quantized)
    wide = {name for name, tensor in stored.items() if tensor.dtype == torch.bfloat16 and tensor.ndim > 1}
    assert all("experts" in name or ".gate." in name for name in wide)
    assert stored["model.embed_tokens.weight"].dtype == torch.uint8


def test_streamed_files_are_those_that_loading_and_saving_makes(base: Path, quantized: Path, tmp_path: Path) -> None:
    quantize_whole(base, tmp_path / "whole", "cpu", FourBitEverywhereConfig())
    assert_same(tensors(quantized), tensors(tmp_path / "whole"))


@each_device
@torch.no_grad()
def test_it_computes_with_the_dequantized_weights(base: Path, quantized: Path, device: str) -> None:
    published = load_published(quantized, device)
    dense = dense_twin(published, base)
    found, wanted = published(TOKENS.to(device)).logits, dense(TOKENS).logits
    assert found.dtype == compute_dtype(device)
    near = {"cpu": 5e-3, "cuda": 4e-2}[device]  # eight bits of a number there
    assert (found.cpu() - wanted).abs().max() <= near * wanted.abs().max()


@torch.no_grad()
def test_plain_from_pretrained_and_save_pretrained_go_round(quantized: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(quantized)
    model.save_pretrained(tmp_path / "again")
    first = model(TOKENS).logits
    assert_same(tensors(tmp_path / "again"), tensors(quantized))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert again.is_loaded_in_4bit
    assert torch.equal(again(TOKENS).logits, first)
    assert isinstance(again.get_input_embeddings(), FourBitTable)
    assert isinstance(again.get_output_embeddings(), Linear4bit)
    tied = again.config.tie_word_embeddings
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == tied


@torch.no_grad()
def test_the_head_is_known_to_whoever_trains_and_measures(quantized: Path) -> None:
    model = load_published(quantized, "cpu")
    logits = head_of(model).logits(hidden_states(model, TOKENS))
    torch.testing.assert_close(logits, model(TOKENS).logits, rtol=1e-4, atol=1e-4)


def test_lora_on_all_linear_layers_trains_and_leaves_the_head_alone(quantized: Path) -> None:
    model = prepare_model_for_kbit_training(AutoModelForCausalLM.from_pretrained(quantized))
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    assert not any("lm_head" in name or "embed" in name for name, _ in tuned.named_parameters() if "lora" in name)
    optimizer = torch.optim.AdamW([weight for weight in tuned.parameters() if weight.requires_grad], lr=1e-2)
    losses = []
    for _ in range(5):
        loss = tuned(TOKENS, labels=TOKENS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@torch.no_grad()
def test_it_generates(quantized: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(quantized).eval()
    made = model.generate(TOKENS[:, 1:5], max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert made.shape == (2, 8)


def test_rows_are_those_of_the_whole_table(quantized: Path) -> None:
    weight = AutoModelForCausalLM.from_pretrained(quantized).get_input_embeddings().weight
    rows = torch.tensor([319, 0, 7, 7])
    assert torch.equal(rows_of(weight, rows, torch.bfloat16), dense(weight, torch.bfloat16)[rows])
