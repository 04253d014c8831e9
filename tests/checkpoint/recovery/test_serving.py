"""Who serves a recovered adapter beside others. Of PEFT the oracle is PEFT; of vLLM and SGLang what their own checks
say, which are not installed here, written down case by case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import PreTrainedModel

from publisher.checkpoint.recovery import recover_adapter
from publisher.checkpoint.recovery.serving import Served, served
from tests.checkpoint.pruned import make_pair, save_checkpoint

_Q = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "down_proj"]}
_LORA = {**_Q, "r": 2, "init_lora_weights": False}
TOKENS = torch.arange(24).reshape(2, 12)
#: what was trained → by PEFT, vLLM and SGLang: "" is taken
CASES: dict[str, tuple[PeftConfig, str, str, str]] = {
    "plain": (LoraConfig(**_LORA), "", "", ""),
    "a pattern of names": (
        LoraConfig(**{**_LORA, "target_modules": ".*q_proj"}),
        "",
        "",
        "target_modules is a pattern",
    ),
    "rslora": (LoraConfig(**_LORA, use_rslora=True), "", "", "without use_rslora"),
    "ranks": (LoraConfig(**_LORA, rank_pattern={"q_proj": 3}), "", "", "without rank_pattern"),
    "alphas": (LoraConfig(**_LORA, alpha_pattern={"q_proj": 3}), "", "", "without alpha_pattern"),
    "equal alphas": (LoraConfig(**_LORA, alpha_pattern={"q_proj": 8}), "", "", ""),
    "bias of B": (LoraConfig(**_LORA, lora_bias=True), "", "lora_bias", "lora_bias"),
    "dora": (LoraConfig(**_LORA, use_dora=True), "DoRA", "use_dora", "use_dora"),
    "head": (LoraConfig(**_LORA, modules_to_save=["lm_head"]), "", "no LoRA's", "no LoRA's"),
    "biases": (LoraConfig(**_LORA, bias="lora_only"), "biases", "bias is lora_only", "bias is lora_only"),
    "loha": (LoHaConfig(**_Q, r=2, init_weights=False), "LOHA", "LOHA", "LOHA"),
    "ia3": (IA3Config(**_Q, feedforward_modules=["down_proj"]), "IA3", "IA3", "IA3"),
}


def base() -> PreTrainedModel:
    return make_pair(mlp_bias=True).base.float()


@pytest.mark.parametrize("case", CASES)
def test_each_engine_takes_what_it_computes_rightly(case: str, tmp_path: Path) -> None:
    config, *expected = CASES[case]
    for seed, name in enumerate(("one", "other")):
        adapter(config, seed).save_pretrained(tmp_path / name)
    names = load_file(tmp_path / "one" / "adapter_model.safetensors")
    answers = served(json.loads((tmp_path / "one" / "adapter_config.json").read_text()), names)
    assert [each.engine for each in answers] == ["PEFT", "vLLM", "SGLang"]
    for answer, words in zip(answers, expected, strict=True):
        assert answer.taken == (not words)
        assert words in str(answer)
    assert mixes(tmp_path) == answers[0].taken


def adapter(config: PeftConfig, seed: int) -> PeftModel:
    model = base()  # which seeds, too
    torch.manual_seed(seed)
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * 0.1 * (1 if "base_layer" in name else 2)
    return model


@torch.inference_mode()
def mixes(folder: Path) -> bool:
    """Whether a batch of a row for each of two adapters gives what each gives alone, and both differ."""
    alone = [PeftModel.from_pretrained(base(), folder / name).eval()(TOKENS).logits for name in ("one", "other")]
    try:
        both = PeftModel.from_pretrained(base(), folder / "one", adapter_name="one").eval()
        both.load_adapter(folder / "other", "other")
        found = both(TOKENS, adapter_names=["one", "other"]).logits
    except (ValueError, TypeError):
        return False
    expected = torch.stack([alone[0][0], alone[1][1]])
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)
    return torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ({"r": 1}, "vLLM from max_lora_rank 1"),
        ({"r": 9}, "vLLM from max_lora_rank 16"),
        ({"r": 16}, "vLLM from max_lora_rank 16"),
        ({"r": 8, "rank_pattern": {"q_proj": 300}}, "vLLM from max_lora_rank 320"),
        ({"r": 513}, "not vLLM: rank 513 is more than 512"),
    ],
)
def test_vllm_is_asked_for_the_smallest_rank_that_it_takes(ranks: dict[str, Any], said: str) -> None:
    assert said in map(str, served({"peft_type": "LORA", **ranks}, ["m.lora_A.weight"]))


def test_recovered_adapters_of_several_users_are_served_in_one_batch(tmp_path: Path) -> None:
    """Trained on the checkpoint, each with ranks and targets of its own; FLoRA's case."""
    pair = make_pair()
    checkpoint = save_checkpoint(tmp_path / "checkpoint", pair.pruned)
    users = {
        "ann": {"r": 2, "target_modules": ["q_proj", "v_proj"]},
        "bob": {"r": 5, "lora_alpha": 3, "target_modules": ["down_proj", "o_proj"]},
        "eve": {"r": 3, "target_modules": "all-linear"},
    }
    for seed, (user, config) in enumerate(users.items()):
        model = make_pair().pruned.float()  # which seeds, too
        torch.manual_seed(seed)
        trained = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **config))
        trained.save_pretrained(tmp_path / user)
        report = recover_adapter(tmp_path / user, checkpoint, tmp_path / f"{user}-recovered")
        assert all(each.taken for each in report.served)
    rows = torch.randint(64, (4, 12), generator=torch.Generator().manual_seed(0))
    recovered = {user: tmp_path / f"{user}-recovered" for user in users}
    with torch.inference_mode():
        plain = make_pair().base.float()(rows).logits
        alone = {
            user: PeftModel.from_pretrained(make_pair().base.float(), folder).eval()(rows).logits
            for user, folder in recovered.items()
        }
        model = PeftModel.from_pretrained(make_pair().base.float(), recovered["ann"], adapter_name="ann").eval()
        for user in ("bob", "eve"):
            model.load_adapter(recovered[user], user)
        together = model(rows, adapter_names=["ann", "eve", "bob", "__base__"]).logits
    expected = torch.stack([alone["ann"][0], alone["eve"][1], alone["bob"][2], plain[3]])
    torch.testing.assert_close(together, expected, rtol=0, atol=1e-5)
    assert all((together[row] - plain[row]).abs().max() > 0.1 for row in range(3))


def test_a_merged_model_is_no_adapter(tmp_path: Path) -> None:
    pair = make_pair()
    pair.base.float().save_pretrained(tmp_path / "base")
    checkpoint = save_checkpoint(tmp_path / "checkpoint", pair.pruned, base=str(tmp_path / "base"))
    get_peft_model(make_pair().pruned.float(), LoraConfig(**_LORA)).save_pretrained(tmp_path / "a")
    merged = recover_adapter(
        tmp_path / "a", checkpoint, tmp_path / "out", base_model=str(tmp_path / "base"), merge=True
    )
    assert merged.served == ()


def test_reasons_are_told_in_one_line() -> None:
    assert str(Served("SGLang", ("a", "b"), "")) == "not SGLang: a and b"
