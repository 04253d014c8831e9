"""What people do with a checkpoint: save, load, quantize, train, generate. Random weights, layers of three widths."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch.utils.data import Dataset
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

from publisher.loading.notice import NOTICE
from tests.checkpoint.pruned import PROJECTIONS, lora, make_pair, save_checkpoint

TOKENS = torch.arange(24).reshape(2, 12) % 64


@pytest.fixture
def pruned() -> LlamaForCausalLM:
    return make_pair().pruned


class Repeated(Dataset[dict[str, torch.Tensor]]):
    """Eight times the same sequence: a loss that has to fall."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": TOKENS[0], "labels": TOKENS[0]}


def widths(model: LlamaForCausalLM) -> list[tuple[int, int, int]]:
    return [
        (m.self_attn.q_proj.out_features, m.self_attn.k_proj.out_features, m.mlp.up_proj.out_features)
        for m in model.model.layers
    ]


def test_layers_have_the_widths_of_their_own_config(pruned: LlamaForCausalLM) -> None:
    assert widths(pruned) == [(48, 24, 20), (32, 16, 6), (48, 24, 8), (48, 24, 20)]


def test_saved_checkpoint_loads_equal(pruned: LlamaForCausalLM, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, pruned)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert widths(loaded) == widths(pruned)
    torch.testing.assert_close(loaded(TOKENS).logits, pruned(TOKENS).logits, rtol=0, atol=0)


def test_sharded_checkpoint_loads_equal(pruned: LlamaForCausalLM, tmp_path: Path) -> None:
    pruned.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(TOKENS).logits, pruned(TOKENS).logits, rtol=0, atol=0)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generation_with_a_cache_equals_generation_without(pruned: LlamaForCausalLM, cache: str) -> None:
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with torch.no_grad():
        plain = pruned.generate(TOKENS, use_cache=False, **settings)
        cached = pruned.generate(TOKENS, use_cache=True, cache_implementation=cache, **settings)
    assert plain.shape == (2, 24)
    assert torch.equal(plain, cached)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementation_reaches_every_layer(pruned: LlamaForCausalLM, implementation: str) -> None:
    before = pruned(TOKENS).logits
    pruned.set_attn_implementation(implementation)
    used = {layer.self_attn.config._attn_implementation for layer in pruned.model.layers}
    assert used == {implementation}
    torch.testing.assert_close(pruned(TOKENS).logits, before, rtol=0, atol=1e-5)  # eager rounds its softmax to float32


def test_eager_attention_is_really_used(pruned: LlamaForCausalLM) -> None:
    pruned.set_attn_implementation("eager")
    attentions = pruned(TOKENS, output_attentions=True).attentions
    assert [weights.shape[1] for weights in attentions] == [6, 4, 6, 6]


def test_heads_need_not_divide_the_hidden_size(tmp_path: Path) -> None:
    """LLaMA-2-13B at ratio 0.65 keeps 14 heads of 128 in a hidden size of 5120."""
    narrow = {"num_attention_heads": 14, "num_key_value_heads": 14, "intermediate_size": 4838}
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=5120,
        intermediate_size=13824,
        num_attention_heads=40,
        num_hidden_layers=6,
        head_dim=128,
        per_layer_config={2: narrow, 3: narrow},
    )
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig.from_pretrained(tmp_path))
    assert widths(model)[1:4] == [(5120, 5120, 13824), (1792, 1792, 4838), (1792, 1792, 4838)]


def test_nf4_layers_of_odd_widths_infer_and_generate(pruned: LlamaForCausalLM, tmp_path: Path) -> None:
    pruned.float().save_pretrained(tmp_path)
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=quantization)
    with torch.inference_mode():
        assert loaded(TOKENS).logits.isfinite().all()
        assert loaded.generate(TOKENS, max_new_tokens=3, pad_token_id=0, eos_token_id=None).shape == (2, 15)


def test_nf4_is_saved_in_4_bits_and_loads_equal(tmp_path: Path) -> None:
    torch.manual_seed(0)
    narrow = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 64}
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads, per_layer_config={1: narrow})).save_pretrained(tmp_path / "full")
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    quantized = AutoModelForCausalLM.from_pretrained(tmp_path / "full", quantization_config=quantization)
    quantized.save_pretrained(tmp_path / "nf4")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "nf4")
    assert (tmp_path / "nf4" / "model.safetensors").stat().st_size < (
        tmp_path / "full" / "model.safetensors"
    ).stat().st_size / 2
    torch.testing.assert_close(loaded(TOKENS).logits, quantized(TOKENS).logits, rtol=0, atol=0)

    tuned = lora(loaded)
    tuned(input_ids=TOKENS, labels=TOKENS).loss.backward()
    gradients = [p.grad for name, p in tuned.named_parameters() if "lora_" in name]
    assert len(gradients) == 2 * 3 * len(PROJECTIONS)
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("bias", [False, True])
def test_nf4_trains_the_same_before_and_after_inference(tmp_path: Path, bias: bool) -> None:
    """Of widths that bitsandbytes has a kernel for inference for, on CPUs with bf16 instructions."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "attention_bias": bias, "mlp_bias": bias}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads)).bfloat16().save_pretrained(tmp_path)
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    tuned = lora(AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=quantization))

    def gradients() -> list[torch.Tensor]:
        tuned.zero_grad()
        tuned.train()(input_ids=TOKENS, labels=TOKENS).loss.backward()
        return [p.grad.clone() for p in tuned.parameters() if p.grad is not None]

    before = gradients()
    with torch.no_grad():
        tuned.eval()(TOKENS)
    assert before
    assert all(torch.equal(old, new) for old, new in zip(before, gradients(), strict=True))


def test_adapter_trained_by_trainer_is_saved_and_loads_again(pruned: LlamaForCausalLM, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint", pruned.float())
    tuned = lora(AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint"), init_lora_weights=True)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=12,
        per_device_train_batch_size=4,
        learning_rate=0.05,
        save_steps=12,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model=tuned, args=arguments, train_dataset=Repeated())
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] / 2

    again = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint"), str(tmp_path / "run" / "checkpoint-12")
    )
    torch.testing.assert_close(again.eval()(TOKENS).logits, tuned.eval()(TOKENS).logits)


def load_in_another_process(folder: Path, first: str = "", **options: object) -> subprocess.CompletedProcess[str]:
    """By transformers alone, unless `first` imports something; `options` are from_pretrained's."""
    code = (
        f"{first}\nfrom transformers import AutoModelForCausalLM\n"
        f"AutoModelForCausalLM.from_pretrained({str(folder)!r}, **{options!r})"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"allow_global_per_layer_attribute_access": True}, marks=pytest.mark.long)],
    ids=["plain", "as advised"],
)
def test_without_this_package_loading_names_it(
    pruned: LlamaForCausalLM, tmp_path: Path, options: dict[str, bool]
) -> None:
    save_checkpoint(tmp_path, pruned)
    bare = load_in_another_process(tmp_path, **options)
    assert bare.returncode != 0
    assert NOTICE in bare.stderr.splitlines()[-1]
    assert load_in_another_process(tmp_path, "import publisher.checkpoint").returncode == 0


def test_stock_transformers_loads_layers_of_one_width(tmp_path: Path) -> None:
    sizes = {"vocab_size": 64, "hidden_size": 24, "intermediate_size": 7, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads)).save_pretrained(tmp_path)
    done = load_in_another_process(tmp_path)
    assert done.returncode == 0, done.stderr
