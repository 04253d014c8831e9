"""Masked training: oracle is autograd through weights that hold (B A) ∘ M explicitly, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.func import functional_call
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, PreTrainedModel, Trainer
from transformers import TrainingArguments as Arguments

from publisher.checkpoint.masked import mask_adapter, masked_product, unmask_adapter
from publisher.checkpoint.weight_masks import WeightMasks, pack
from publisher.errors import RequestFault
from tests.checkpoint.pruned import MASKS, make_pair, save_checkpoint
from tests.checkpoint.sparse import random_model, write_masks, zero_pruned
from tests.devices import each_device

TOKENS = torch.arange(24).reshape(2, 12) % 64
SIZES = {
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 35,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float64 model with half of its middle layers' weights pruned, and the masks."""
    folder = tmp_path_factory.mktemp("checkpoint")
    random_model(LlamaConfig(**SIZES)).save_pretrained(folder)
    zero_pruned(folder, write_masks(folder, folder / "pruning_masks.safetensors"))
    return folder


def masks_of(checkpoint: Path) -> WeightMasks:
    return WeightMasks(checkpoint / "pruning_masks.safetensors")


def lora(model: PreTrainedModel, **config: Any) -> PeftModel:
    torch.manual_seed(1)
    settings = {"r": 3, "lora_alpha": 5, "target_modules": "all-linear", "init_lora_weights": False} | config
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings), autocast_adapter_dtype=False)


def masked_lora(checkpoint: Path, device: str = "cpu", **config: Any) -> PeftModel:
    model = lora(AutoModelForCausalLM.from_pretrained(checkpoint).to(device), **config)
    mask_adapter(model, checkpoint)
    return model


def explicit_weights(tuned: PeftModel, masks: WeightMasks) -> dict[str, torch.Tensor]:
    """What the model computes with, made by autograd from A and B: W0 + scaling · (B A) ∘ M."""
    weights = {}
    for name, module in tuned.get_base_model().named_modules():
        if hasattr(module, "lora_A"):
            update = module.lora_B["default"].weight @ module.lora_A["default"].weight * module.scaling["default"]
            mask = masks.mask(f"{name}.weight").to(update.device) if f"{name}.weight" in masks else 1
            weights[f"{name}.weight"] = module.base_layer.weight + update * mask
    return weights


def gradients(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_gradients_of_the_product_are_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    x, a, b = (torch.randn(shape, dtype=torch.float64, generator=generator) for shape in ((2, 3, 11), (2, 11), (5, 2)))
    packed = pack(torch.rand(5, 11, generator=generator) < 0.5)
    inputs = tuple(tensor.requires_grad_() for tensor in (x, a, b))
    assert torch.autograd.gradcheck(lambda *tensors: masked_product(*tensors, packed), inputs)
    for chosen in range(3):
        partly = tuple(tensor.detach().requires_grad_(i == chosen) for i, tensor in enumerate(inputs))
        assert torch.autograd.gradcheck(lambda *tensors: masked_product(*tensors, packed), partly)


@each_device
@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 5}}], ids=str)
def test_logits_and_gradients_are_those_of_explicitly_masked_weights(
    checkpoint: Path, config: dict[str, Any], device: str
) -> None:
    tuned, masks, tokens = masked_lora(checkpoint, device, **config), masks_of(checkpoint), TOKENS.to(device)
    loss = tuned(input_ids=tokens, labels=tokens)
    loss.loss.backward()
    found = gradients(tuned)
    tuned.zero_grad()

    weights = explicit_weights(tuned, masks)
    plain = AutoModelForCausalLM.from_pretrained(checkpoint).to(device)
    expected = functional_call(plain, weights, kwargs={"input_ids": tokens, "labels": tokens})
    expected.loss.backward()
    torch.testing.assert_close(loss.logits, expected.logits, rtol=0, atol=1e-10)
    assert found.keys() == gradients(tuned).keys()
    for name, gradient in gradients(tuned).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(checkpoint: Path, reentrant: bool) -> None:
    tuned = masked_lora(checkpoint).train()
    tuned(input_ids=TOKENS, labels=TOKENS).loss.backward()
    expected = gradients(tuned)
    tuned.zero_grad()
    tuned.enable_input_require_grads()
    tuned.gradient_checkpointing_enable({"use_reentrant": reentrant})
    tuned(input_ids=TOKENS, labels=TOKENS).loss.backward()
    for name, gradient in gradients(tuned).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-12, atol=1e-14)


def test_dropout_falls_on_the_updates_input(checkpoint: Path) -> None:
    tuned = masked_lora(checkpoint, lora_dropout=0.5).train()
    layer = tuned.get_base_model().model.layers[1].mlp.up_proj
    x = torch.randn(7, 24, dtype=torch.float64)
    torch.manual_seed(5)
    found = layer(x)
    torch.manual_seed(5)
    dropped = layer.lora_dropout["default"](x)
    weight = explicit_weights(tuned, masks_of(checkpoint))["model.layers.1.mlp.up_proj.weight"]
    base = layer.base_layer(x)
    torch.testing.assert_close(found, base + dropped @ (weight - layer.base_layer.weight).T, rtol=0, atol=1e-10)


def test_merged_update_is_masked_and_can_be_taken_back(checkpoint: Path) -> None:
    tuned, masks = masked_lora(checkpoint).eval(), masks_of(checkpoint)
    expected = tuned(TOKENS).logits
    tuned.merge_adapter()
    torch.testing.assert_close(tuned(TOKENS).logits, expected, rtol=0, atol=1e-10)
    for name, module in tuned.get_base_model().named_modules():
        if f"{name}.weight" in masks:
            assert not module.base_layer.weight[~masks.mask(f"{name}.weight")].any()
    tuned.unmerge_adapter()
    torch.testing.assert_close(tuned(TOKENS).logits, expected, rtol=0, atol=1e-10)
    merged = tuned.merge_and_unload(safe_merge=True)
    torch.testing.assert_close(merged(TOKENS).logits, expected, rtol=0, atol=1e-10)


def test_unmasked_adapter_is_a_plain_one_again(checkpoint: Path) -> None:
    plain = lora(AutoModelForCausalLM.from_pretrained(checkpoint)).eval()
    before = plain(TOKENS).logits
    assert mask_adapter(plain, checkpoint) == 2 * 7
    assert not torch.equal(plain(TOKENS).logits, before)
    unmask_adapter(plain)
    assert torch.equal(plain(TOKENS).logits, before)


def test_saved_adapter_is_a_stock_one_and_goes_on_masked(checkpoint: Path, tmp_path: Path) -> None:
    tuned = masked_lora(checkpoint).eval()
    tuned.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(checkpoint), str(tmp_path), autocast_adapter_dtype=False, is_trainable=True
    )
    mask_adapter(again, checkpoint)
    torch.testing.assert_close(again.eval()(TOKENS).logits, tuned(TOKENS).logits, rtol=0, atol=1e-12)


class Repeated(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": TOKENS[0], "labels": TOKENS[0]}


@pytest.mark.parametrize("bf16", [False, True])
def test_trainer_trains_a_masked_adapter(checkpoint: Path, tmp_path: Path, bf16: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    tuned = lora(model, init_lora_weights=True, lora_dropout=0.05)
    mask_adapter(tuned, checkpoint)
    arguments = Arguments(
        output_dir=str(tmp_path),
        max_steps=30,
        per_device_train_batch_size=4,
        learning_rate=0.05,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        bf16=bf16,
        gradient_checkpointing=True,
    )
    trainer = Trainer(model=tuned, args=arguments, train_dataset=Repeated())
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 1


def test_four_bit_layers_train_masked(checkpoint: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).save_pretrained(tmp_path)
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    tuned = lora(AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=quantization))
    before = tuned(TOKENS).logits
    mask_adapter(tuned, checkpoint)
    after = tuned(input_ids=TOKENS, labels=TOKENS)
    assert not torch.equal(after.logits, before)
    after.loss.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(tuned).values())


def test_adapters_that_cannot_be_masked_are_refused_by_name(checkpoint: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    with pytest.raises(RequestFault, match=r"model\.layers\.1\.self_attn\.q_proj is trained with DoraLinearVariant"):
        mask_adapter(lora(model, use_dora=True, target_modules=["q_proj"]), checkpoint)
    other = random_model(LlamaConfig(**SIZES | {"intermediate_size": 40}))
    with pytest.raises(RequestFault, match=r"gate_proj has \(40, 24\) .* is for \(35, 24\)"):
        mask_adapter(lora(other, target_modules=["gate_proj"]), checkpoint)
    with pytest.raises(RequestFault, match="none of the 1 layers"):
        mask_adapter(lora(random_model(LlamaConfig(**SIZES)), target_modules=["lm_head"]), checkpoint)
    structured = save_checkpoint(tmp_path, make_pair().pruned, masks=MASKS)
    with pytest.raises(RequestFault, match="no masks of single weights"):
        mask_adapter(lora(make_pair().pruned), structured)
