"""Recovery by the masks file alone, for layers that are not Llama's: packed projections, biases, routers.

Oracle: what pruning leaves of the base model with the recovered update is the pruned model with the trained one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from publisher.architecture.structure import Unit
from publisher.checkpoint.masks import Masks, load_masks, save_masks
from publisher.checkpoint.recovery import recover_folder
from publisher.errors import RequestFault
from publisher.families.describe import describe
from tests.checkpoint.pruned import cut_state, zero_removed

TOKENS = torch.arange(40).reshape(2, 20) % 64
SIZES = {
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
HEADS = {(1, Unit.KV_HEADS): (0, 2)}
NEURONS = {(1, Unit.NEURONS): (1, 4, 5, 6, 13, 19), (2, Unit.NEURONS): (0, 2, 3, 7)}
EXPERTS = {(0, Unit.EXPERTS): (1, 2, 4), (1, Unit.EXPERTS): (0, 3)}
FIELDS = {Unit.NEURONS: "intermediate_size", Unit.EXPERTS: "num_local_experts", Unit.KV_HEADS: "num_key_value_heads"}


@pytest.fixture(autouse=True, scope="module")
def _double() -> Any:
    """Rotary frequencies and router weights in float64 too."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_model(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, experts_implementation="eager").double().eval()
    for parameter in model.parameters():  # biases and norms start as constants
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


def masks_for(config: PreTrainedConfig, kept: Mapping[tuple[int, Unit], tuple[int, ...]], folder: Path) -> Masks:
    """By way of the file, which is all that recovery has."""
    geometry = describe(config.to_dict())
    save_masks(Masks(geometry.kinds, geometry.kind_of, kept, geometry.layer_prefix), folder / "masks.safetensors")
    return load_masks(folder / "masks.safetensors")


def pruned_copy(base: PreTrainedModel, masks: Masks) -> PreTrainedModel:
    overrides: dict[int, dict[str, int]] = {}
    for layer, unit in masks.kept:
        count = masks.counts(layer)[unit]
        heads = {"num_attention_heads": 2 * count, "head_dim": 4} if unit is Unit.KV_HEADS else {}
        overrides.setdefault(layer, {}).update({FIELDS[unit]: count, **heads})
    config = type(base.config).from_dict(base.config.to_dict() | {"head_dim": 4, "per_layer_config": overrides})
    pruned: PreTrainedModel = AutoModelForCausalLM.from_config(config, experts_implementation="eager").double().eval()
    pruned.load_state_dict(cut_state(base.state_dict(), masks))
    return pruned


def trained(pruned: PreTrainedModel, folder: Path, **config: Any) -> PeftModel:
    """A LoRA whose A and B are both random, saved as PEFT does."""
    torch.manual_seed(1)
    settings = {"r": 3, "lora_alpha": 5, "init_lora_weights": False} | config
    tuned = get_peft_model(pruned, LoraConfig(task_type="CAUSAL_LM", **settings), autocast_adapter_dtype=False)
    tuned.eval().save_pretrained(folder)
    return tuned


@pytest.mark.parametrize(
    ("config", "kept", "adapter"),
    [
        (Phi3Config(**SIZES), HEADS | NEURONS, {"target_modules": "all-linear"}),
        (Qwen2Config(**SIZES), HEADS | NEURONS, {"target_modules": "all-linear"}),
        (Olmo2Config(**SIZES), HEADS | NEURONS, {"target_modules": "all-linear"}),
        (MixtralConfig(**SIZES, num_local_experts=5), HEADS | EXPERTS, {"target_parameters": ["mlp.gate.weight"]}),
    ],
    ids=["phi3", "qwen2", "olmo2", "mixtral-router"],
)
def test_recovered_update_is_the_trained_one_where_kept_and_nothing_elsewhere(
    tmp_path: Path, config: PreTrainedConfig, kept: Mapping[tuple[int, Unit], tuple[int, ...]], adapter: dict[str, Any]
) -> None:
    base, masks = random_model(config), masks_for(config, kept, tmp_path)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    tuned = trained(pruned_copy(base, masks), tmp_path / "adapter", **adapter)
    recover_folder(tmp_path / "adapter", tmp_path / "recovered", masks, "org/base", None)

    recovered = PeftModel.from_pretrained(base, str(tmp_path / "recovered"), autocast_adapter_dtype=False)
    merged = recovered.merge_and_unload()
    torch.testing.assert_close(pruned_copy(merged, masks)(TOKENS).logits, tuned(TOKENS).logits, rtol=0, atol=1e-9)
    update = {name: tensor - before[name] for name, tensor in merged.state_dict().items()}
    assert nonzeros(update) == nonzeros(cut_state(update, masks)) > 0


def nonzeros(state: Mapping[str, torch.Tensor]) -> int:
    return sum(int(tensor.count_nonzero()) for tensor in state.values())


@pytest.mark.parametrize("config", [Phi3Config(**SIZES), Qwen2Config(**SIZES)], ids=["packed", "biased"])
def test_recovered_adapter_on_the_silenced_base_equals_the_adapter_on_the_checkpoint(
    tmp_path: Path, config: PreTrainedConfig
) -> None:
    base, masks = random_model(config), masks_for(config, HEADS | NEURONS, tmp_path)
    tuned = trained(pruned_copy(base, masks), tmp_path / "adapter", target_modules="all-linear", lora_bias=True)
    recover_folder(tmp_path / "adapter", tmp_path / "recovered", masks, "org/base", None)
    zero_removed(base, masks)
    recovered = PeftModel.from_pretrained(base, str(tmp_path / "recovered"), autocast_adapter_dtype=False)
    torch.testing.assert_close(recovered(TOKENS).logits, tuned(TOKENS).logits, rtol=0, atol=1e-9)


def test_update_of_fused_experts_is_refused_by_name(tmp_path: Path) -> None:
    config = MixtralConfig(**SIZES, num_local_experts=5)
    masks = masks_for(config, EXPERTS, tmp_path)
    adapter = {"target_parameters": ["mlp.experts.gate_up_proj"]}
    trained(pruned_copy(random_model(config), masks), tmp_path / "adapter", **adapter)
    with pytest.raises(RequestFault, match=r"layers\.0\.mlp\.experts\.lora_A\.weight is an update of something"):
        recover_folder(tmp_path / "adapter", tmp_path / "out", masks, "org/base", None)
    assert not (tmp_path / "out").exists()


def test_trained_copy_of_a_cut_router_is_refused(tmp_path: Path) -> None:
    config = MixtralConfig(**SIZES, num_local_experts=5)
    masks = masks_for(config, EXPERTS, tmp_path)
    trained(
        pruned_copy(random_model(config), masks), tmp_path / "a", target_modules=["q_proj"], modules_to_save=["gate"]
    )
    with pytest.raises(RequestFault, match=r"layers\.0\.mlp\.gate\.weight is a whole parameter"):
        recover_folder(tmp_path / "a", tmp_path / "out", masks, "org/base", None)
