"""Heads of real families, compared with the logits of their own forward pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from publisher.errors import UnsupportedModel
from worker.models.causal import hidden_states
from worker.models.head import head_of

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOKENS = torch.arange(3, 63).reshape(4, 15)
#: family → what its config says of logits, in values that show
FAMILIES = {
    "llama": {},
    "gemma2": {"final_logit_softcapping": 2.0},
    "cohere": {"logit_scale": 0.0625},
    "granite": {"logits_scaling": 8.0},
    "hyperclovax": {"logits_scaling": 0.25},
    "phi": {},
}


def _model(family: str, dtype: torch.dtype, **config: object) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, **(SIZES | FAMILIES[family] | config)), dtype=dtype
    )
    for weight in model.parameters():
        torch.nn.init.normal_(weight.data, std=0.2)
    return model.eval()


@torch.no_grad()
def _both_logits(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    return head_of(model).logits(hidden_states(model, TOKENS)), model(TOKENS).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_through_the_head_are_the_models_own_logits(family: str) -> None:
    found, own = _both_logits(_model(family, torch.float64))
    torch.testing.assert_close(found, own, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_finds_the_same_head(family: str) -> None:
    exact, coarse = head_of(_model(family, torch.float64)), head_of(_model(family, torch.bfloat16))
    assert (coarse.scale, coarse.softcap) == (exact.scale, exact.softcap)
    assert (coarse.bias is None) == (exact.bias is None)


def test_decoder_layers_need_no_weights() -> None:
    model = _model("granite", torch.float32)
    model.model.layers.to("meta")
    assert head_of(model).scale == 1 / 8
    assert next(model.model.layers.parameters()).is_meta


def test_logits_made_in_another_way_are_refused() -> None:
    model = _model("llama", torch.float32)
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits.square())
    with pytest.raises(UnsupportedModel, match="LlamaForCausalLM makes its logits in a way that is not known"):
        head_of(model)
