"""The adapter methods that can be recovered, by the `peft_type` in adapter_config.json.

A method is one module here that ends in its AdapterMethod, and one word in `_KNOWN`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from publisher.checkpoint.recovery.method import AdapterMethod
from publisher.checkpoint.recovery.methods.lora import LORA
from publisher.errors import RequestFault

_KNOWN = (LORA,)

METHODS: dict[str, AdapterMethod] = {}


def register(method: AdapterMethod) -> None:
    """Raises ValueError if its peft_type is taken, or it has no way to end."""
    if method.peft_type in METHODS:
        raise ValueError(f"{method.peft_type} has a recovery already, as {METHODS[method.peft_type].title}")
    if method.recover is None and method.merge is None:
        raise ValueError(f"{method.peft_type} can be neither an adapter for the base model nor merged into it")
    METHODS[method.peft_type] = method


def method_of(config: Mapping[str, Any]) -> AdapterMethod:
    """The method of an adapter_config.json; RequestFault naming one that has no recovery."""
    peft_type = str(config.get("peft_type")).removeprefix("PeftType.")
    if peft_type not in METHODS:
        raise RequestFault(
            f"The adapter is of PEFT type {peft_type}, which has no recovery.",
            way_out="Train a LoRA (peft_type LORA).",
        )
    return METHODS[peft_type]


for _method in _KNOWN:
    register(_method)
