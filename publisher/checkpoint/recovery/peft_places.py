"""An adapter's places as PEFT itself says: on the model without its weights, adapted as adapter_config.json asks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from peft import PeftType, get_peft_model, get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from publisher.checkpoint.recovery.built_skeleton import empty_model, vocabulary_modules
from publisher.checkpoint.recovery.changes import Target
from publisher.checkpoint.recovery.folder import for_base_model
from publisher.checkpoint.recovery.naming import PEFT_PREFIX, Naming
from publisher.checkpoint.recovery.places import LEADING, NOT_FITTING, AdapterPlaces, unfit

#: PEFT's task types whose head is no LM head: no checkpoint has it, and all of it is the adapter's own.
_CLASSIFIERS: Mapping[str, Any] = {
    "SEQ_CLS": AutoModelForSequenceClassification,
    "TOKEN_CLS": AutoModelForTokenClassification,
}
_NOT_SAVED = (".original_module.", ".modules_to_save.", ".trainable_tokens_")


def peft_places(model_folder: Path, config: Mapping[str, Any], naming: Naming) -> AdapterPlaces:
    """As `places`. Takes no memory for weights, and a second for 80 layers."""
    auto = _CLASSIFIERS.get(str(config.get("task_type")).removeprefix("TaskType."), AutoModelForCausalLM)
    model = empty_model(model_folder, auto)
    first, head = vocabulary_modules(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = _adapted(model, config)
        saved = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    wanted = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    also = {
        name: tuple(tensor.shape)
        for name, tensor in adapted.state_dict().items()
        if name not in wanted and naming.is_whole(name) and not any(part in name for part in _NOT_SAVED)
    }
    outside = {name for name, _ in model.named_children()} - {model.base_model_prefix}
    return AdapterPlaces(
        naming,
        wanted,
        also,
        model.config.get_text_config().vocab_size,
        frozenset(filter(None, (first, head))),
        first,
        LEADING | {model.base_model_prefix},
        frozenset[str]() if auto is AutoModelForCausalLM else frozenset(outside),
        auto.__name__,
        dict(_targets(adapted)),
    )


def _targets(model: nn.Module) -> Iterator[tuple[str, Target]]:
    for name, module in model.named_modules():
        base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else None
        if isinstance(base, nn.Linear):
            yield name.removeprefix(PEFT_PREFIX), Target(tuple(base.weight.shape), base.bias is not None)


def _adapted(model: PreTrainedModel, config: Mapping[str, Any]) -> Any:
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(str(config.get("peft_type")).removeprefix("PeftType."))]
    known = {each.name for each in fields(config_class) if each.init}
    values = for_base_model(config, "", None) | {"megatron_config": None}
    try:
        method = config_class(**{key: value for key, value in values.items() if key in known})
        return get_peft_model(model, method, low_cpu_mem_usage=True)
    except NOT_FITTING as error:
        raise unfit(config, error) from error
