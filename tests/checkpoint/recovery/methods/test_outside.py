"""What trains nothing where pruning took something: prompts as they are; norms and tokens as differences, so that
alignment is not carried over with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file
from torch import Tensor
from transformers import Qwen2Config

from publisher.checkpoint.recovery import recover_adapter
from publisher.errors import RequestFault
from publisher.weights.folder import StoredWeights
from tests.checkpoint.recovery.methods.oracle import SIZES, Folders, folders

WEIGHTS = "adapter_model.safetensors"
PROMPTS: dict[str, dict[str, Any]] = {
    "PROMPT_TUNING": {"num_virtual_tokens": 3},
    "P_TUNING": {"num_virtual_tokens": 3},
    "MULTITASK_PROMPT_TUNING": {"num_virtual_tokens": 3, "num_tasks": 2},
    "CPT": {"cpt_token_ids": [1, 2, 3], "cpt_mask": [1, 1, 1], "cpt_tokens_type_mask": [1, 2, 3]},
}
COPIES: dict[str, dict[str, Any]] = {
    "LN_TUNING": {"target_modules": ["input_layernorm", "norm"]},
    "TRAINABLE_TOKENS": {"target_modules": ["embed_tokens"], "token_indices": [5, 3]},
}
CHANGED = {"LN_TUNING": "model.layers.1.input_layernorm.weight", "TRAINABLE_TOKENS": "model.embed_tokens.weight"}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return folders(Qwen2Config(**SIZES), tmp_path_factory.mktemp("outside"), aligned=True)


def trained(given: Folders, folder: Path, peft_type: str, **values: Any) -> PeftModel:
    config = PEFT_TYPE_TO_CONFIG_MAPPING[peft_type](task_type="CAUSAL_LM", **values)
    adapted: PeftModel = get_peft_model(given.trainable(), config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.25
    adapted.save_pretrained(folder)
    return adapted


@pytest.mark.parametrize("peft_type", PROMPTS)
def test_prompts_pass_through_bit_by_bit(tmp_path: Path, given: Folders, peft_type: str) -> None:
    trained(given, tmp_path / "adapter", peft_type, **PROMPTS[peft_type])
    recover_adapter(tmp_path / "adapter", given.checkpoint, tmp_path / "out", base_model=str(given.base))
    before, after = (load_file(tmp_path / folder / WEIGHTS) for folder in ("adapter", "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    loaded = PeftModel.from_pretrained(given.base_model(), str(tmp_path / "out"))
    assert torch.equal(loaded.prompt_encoder["default"].embedding.weight, before["prompt_embeddings"])


@pytest.mark.parametrize("options", [{"rank": 4}, {"merge": True}, {"strength": 1.3}], ids=lambda it: next(iter(it)))
def test_prompts_are_no_update_of_weights(tmp_path: Path, given: Folders, options: dict[str, Any]) -> None:
    trained(given, tmp_path / "adapter", "PROMPT_TUNING", **PROMPTS["PROMPT_TUNING"])
    with pytest.raises(RequestFault, match="prompt tuning"):
        recover_adapter(tmp_path / "adapter", given.checkpoint, tmp_path / "out", base_model=str(given.base), **options)
    assert not (tmp_path / "out").exists()


def difference(given: Folders, peft_type: str) -> Tensor:
    """Of the base model's weight: 0.25 wherever it was trained."""
    change = torch.zeros_like(StoredWeights(given.base).read(CHANGED[peft_type]))
    change[COPIES[peft_type].get("token_indices", slice(None))] = 0.25
    return change


@pytest.mark.parametrize("peft_type", COPIES)
def test_what_training_changed_of_norms_and_tokens_is_added_to_the_base_model_s(
    tmp_path: Path, given: Folders, peft_type: str
) -> None:
    trained(given, tmp_path / "adapter", peft_type, **COPIES[peft_type])
    options = {"base_model": str(given.base)}
    report = recover_adapter(tmp_path / "adapter", given.checkpoint, tmp_path / "out", **options)
    recover_adapter(tmp_path / "adapter", given.checkpoint, tmp_path / "merged", merge=True, **options)

    expected, name = difference(given, peft_type), CHANGED[peft_type]
    base = StoredWeights(given.base).read(name)
    adapted = PeftModel.from_pretrained(given.base_model(), str(tmp_path / "out")).merge_and_unload()
    torch.testing.assert_close(adapted.state_dict()[name] - base, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(given.merged(tmp_path / "merged")[name], expected, rtol=0, atol=1e-6)
    assert not report.merged


@pytest.mark.parametrize("peft_type", COPIES)
def test_norms_and_tokens_that_were_not_trained_are_the_base_model_s_own(
    tmp_path: Path, given: Folders, peft_type: str
) -> None:
    config = PEFT_TYPE_TO_CONFIG_MAPPING[peft_type](task_type="CAUSAL_LM", **COPIES[peft_type])
    get_peft_model(given.trainable(), config).save_pretrained(tmp_path / "adapter")
    recover_adapter(tmp_path / "adapter", given.checkpoint, tmp_path / "out", base_model=str(given.base))
    adapted = PeftModel.from_pretrained(given.base_model(), str(tmp_path / "out")).merge_and_unload()
    name = CHANGED[peft_type]
    assert torch.equal(adapted.state_dict()[name], StoredWeights(given.base).read(name))
