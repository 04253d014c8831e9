"""What a training is refused for before it begins, where TRL would fail in words of its own, minutes later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from torch import nn
from transformers import AutoConfig

from publisher.client.train.examples import Examples
from publisher.errors import RequestFault, listed


def refuse_unreadable(examples: Examples, tokenizer: Any) -> None:
    """RequestFault where the tokenizer has no chat template for messages, or its template refuses some."""
    if tokenizer.eos_token is None:
        raise RequestFault("The checkpoint's tokenizer has no end-of-text token.", way_out="Name one (eos_token).")
    if not examples.conversational:
        return
    if tokenizer.chat_template is None:
        raise RequestFault(
            f"{examples.places[0]} has messages, and the checkpoint's tokenizer has no chat template.",
            way_out='Write the examples as "prompt" and "completion" texts, or use the checkpoint of a chat model.',
        )
    for place, row in zip(examples.places, examples.rows, strict=True):
        try:
            tokenizer.apply_chat_template([message for part in row.values() for message in part], tokenize=False)
        except (TemplateError, TypeError) as error:
            raise RequestFault(
                f"{place}: the checkpoint's chat template refuses the messages: {error}.", way_out="Change the line."
            ) from error


def refuse_too_long(folder: Path, length: int) -> None:
    positions = getattr(AutoConfig.from_pretrained(folder).get_text_config(), "max_position_embeddings", None)
    if positions is not None and length > positions:
        raise RequestFault(
            f"Sequences of {length} tokens are longer than the model's {positions} positions.",
            way_out=f"Choose a --length of at most {positions}.",
        )


def refuse_several(device: str) -> None:
    if device == "cuda" and torch.cuda.device_count() > 1:
        raise RequestFault(
            f"{torch.cuda.device_count()} GPUs are visible, and this trains on one.",
            way_out="Choose it: CUDA_VISIBLE_DEVICES=0.",
        )


def linear_targets(model: Any, wanted: tuple[str, ...]) -> set[str]:
    """Names of linear layers, as every server of adapters knows them: no patterns. Not PEFT's "all-linear", which takes
    fused experts along, whose updates cannot be recovered."""
    linear = {
        name.rpartition(".")[2] for name, module in model.base_model.named_modules() if isinstance(module, nn.Linear)
    }
    if unknown := sorted(set(wanted) - linear):
        raise RequestFault(
            f"The model has no linear layer {listed(unknown, 'or')}.", way_out=f"--target: {listed(sorted(linear))}."
        )
    return set(wanted) or linear
