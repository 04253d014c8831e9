"""A model's modules as transformers builds them: on the meta device, so that it takes no memory and a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from publisher.checkpoint.recovery.skeleton import Kind, Module, Skeleton, is_of_experts
from publisher.errors import RequestFault


def built_skeleton(folder: Path) -> Skeleton:
    """As `skeleton_of`."""
    model = empty_model(folder, AutoModelForCausalLM)
    first, head = vocabulary_modules(model)
    modules = {name: Module(_kind(module), _parameters(module)) for name, module in model.named_modules() if name}
    vocabulary = model.config.get_text_config().vocab_size
    return Skeleton(modules, first, head, vocabulary, model.base_model_prefix, any(map(is_of_experts, modules)))


def empty_model(folder: Path, auto: Any) -> PreTrainedModel:
    """Of one of transformers' classes `Auto…`. Raises RequestFault if config.json makes none."""
    try:
        config = AutoConfig.from_pretrained(folder)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        with torch.device("meta"):
            model: PreTrainedModel = auto.from_config(config, attn_implementation="eager")
    except (ValueError, TypeError, KeyError, OSError, AttributeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RequestFault(f"{folder / 'config.json'} makes no model: {said}") from error
    return model


def vocabulary_modules(model: PreTrainedModel) -> tuple[str, str | None]:
    """Names of the input embeddings and of the head."""
    names = {id(module): name for name, module in model.named_modules()}
    head = model.get_output_embeddings()
    return names[id(model.get_input_embeddings())], None if head is None else names[id(head)]


def _kind(module: nn.Module) -> Kind:
    if isinstance(module, nn.Linear):
        return Kind.LINEAR
    return Kind.EMBEDDING if isinstance(module, nn.Embedding) else Kind.OTHER


def _parameters(module: nn.Module) -> dict[str, tuple[int, ...]]:
    own = {name: parameter for name, parameter in module._parameters.items() if parameter is not None}
    saved = {
        name: buffer
        for name, buffer in module._buffers.items()
        if buffer is not None and name not in module._non_persistent_buffers_set
    }
    return {name: tuple(tensor.shape) for name, tensor in (own | saved).items()}
