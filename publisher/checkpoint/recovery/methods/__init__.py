"""The adapter methods of PEFT, by the `peft_type` in adapter_config.json, and what becomes of each.

A method is one declaration in a module here, and one word in `_KNOWN`. What has no recovery is declared too, with the
reason (refused.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from publisher.checkpoint.recovery.method import AdapterMethod, Ending
from publisher.checkpoint.recovery.methods.factors import FACTORS
from publisher.checkpoint.recovery.methods.lora import LORA
from publisher.checkpoint.recovery.methods.lora_variants import LORA_VARIANTS
from publisher.checkpoint.recovery.methods.of_matrices import OF_MATRICES
from publisher.checkpoint.recovery.methods.of_weights import OF_WEIGHTS
from publisher.checkpoint.recovery.methods.outside import OUTSIDE
from publisher.checkpoint.recovery.methods.refused import REFUSED
from publisher.checkpoint.recovery.methods.vectors import VECTORS
from publisher.checkpoint.recovery.written_by import refuse_beyond_installed
from publisher.errors import RequestFault

_KNOWN = (*LORA_VARIANTS, LORA, *FACTORS, *VECTORS, *OF_MATRICES, *OF_WEIGHTS, *OUTSIDE, *REFUSED)

#: by AdapterMethod.key, variants before what takes the rest of their type
METHODS: dict[str, AdapterMethod] = {}


def register(method: AdapterMethod) -> None:
    """Raises ValueError if its peft_type, or its variant of that, is taken, or it has no way to end and says no why."""
    if method.key in METHODS:
        raise ValueError(f"{method.key} has a recovery already, as {METHODS[method.key].title}")
    if method.recover is None and method.merge is None and method.ending is not Ending.REFUSED:
        raise ValueError(f"{method.peft_type} can be neither an adapter for the base model nor merged into it")
    METHODS[method.key] = method


def method_of(config: Mapping[str, Any]) -> AdapterMethod:
    """The method of an adapter_config.json; RequestFault naming one that has no recovery."""
    peft_type = str(config.get("peft_type")).removeprefix("PeftType.")
    found = [method for method in METHODS.values() if method.peft_type == peft_type and method.covers(config)]
    if not found:
        raise RequestFault(
            f"The adapter is of PEFT type {peft_type}, which has no recovery.",
            way_out="Train a LoRA (peft_type LORA).",
        )
    method = found[0]
    if method.ending is not Ending.REFUSED and (method.needs_weights or peft_type != LORA.peft_type):
        refuse_beyond_installed(config)
    return method


for _method in _KNOWN:
    register(_method)
