"""LoRA: recovered exactly, each factor put back at the kept indices; masked updates are merged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.as_lora import as_lora
from publisher.checkpoint.recovery.changes import Together
from publisher.checkpoint.recovery.method import AdapterMethod, Update, one_to_one, refuse_strength
from publisher.checkpoint.recovery.methods.lora_merging import alpha_of, changes
from publisher.checkpoint.recovery.methods.lora_placement import NAMING, recover_tensor, recovered_shape
from publisher.checkpoint.recovery.written_by import refuse_unknown_options
from publisher.errors import RequestFault

#: Initialisations that only choose where A and B start. The others also subtract from the weights they start on, so
#: that the adapter alone is not the whole change: of pissa and olora it is found again (lora_variants.py), but not of
#: those that drew random numbers (pissa_niter_…, loftq) or read text (corda, lora_ga).
_INITIALISATIONS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")

#: of ranks and of alphas: for all modules, and what `…_pattern` begins with
_NUMBERS = (("r", "rank"), ("lora_alpha", "alpha"))

#: LoraConfig fields that change the method, and why zeros at the removed rows would not be enough.
REFUSED_OPTIONS: Mapping[str, str] = {
    "use_qalora": "QA-LoRA pools the inputs in groups that pruning took apart",
    "arrow_config": "Arrow routes between adapters",
    "layer_replication": "its layers are not the base model's layers",
    "fan_in_fan_out": "its layers hold their weights transposed",
}


def refuse_unrecoverable(config: Mapping[str, Any]) -> None:
    """Raise RequestFault naming the option for which recovery would not be exact, or a wrong value."""
    for field, reason in REFUSED_OPTIONS.items():
        if config.get(field):
            raise RequestFault(f"The adapter was trained with {field}: {reason}.", way_out="Train a plain LoRA.")
    initialisation = config.get("init_lora_weights", True)
    if initialisation not in _INITIALISATIONS:
        raise RequestFault(
            f"The adapter was trained with init_lora_weights={initialisation!r}, which also changes the checkpoint's "
            "own weights; the saved A and B alone are not the update.",
            way_out="Save it with path_initial_model_for_weight_conversion, which makes it a plain LoRA.",
        )
    refuse_malformed(config)


def refuse_malformed(config: Mapping[str, Any]) -> None:
    """What hand-written and converted files hold, and PEFT takes or fails of in words of its own, and options of a PEFT
    that is newer than what is known here."""
    refuse_unknown_options(config)
    ranks, alphas = ({"": config.get(key)} | _pattern(config, f"{pattern}_pattern") for key, pattern in _NUMBERS)
    for module, rank in ranks.items():
        if not (type(rank) is int and rank > 0) and not (rank is None and not module):
            raise _malformed("r" if not module else f"rank_pattern of {module}", rank, "a positive whole number")
    for module, alpha in alphas.items():
        if not _is_alpha(alpha) and not (alpha is None and not module):
            raise _malformed("lora_alpha" if not module else f"alpha_pattern of {module}", alpha, "a number but 0")
    for field in ("target_modules", "modules_to_save", "target_parameters", "exclude_modules"):
        if not _is_names(config.get(field)):
            raise _malformed(field, config[field], "a list of names")
    if not isinstance(config.get("use_rslora", False), bool | None):
        raise _malformed("use_rslora", config["use_rslora"], "true or false")


def _pattern(config: Mapping[str, Any], field: str) -> dict[str, Any]:
    pattern = config.get(field) or {}
    if not isinstance(pattern, dict):
        raise _malformed(field, pattern, "an object of names and numbers")
    return pattern


def _is_alpha(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value) and value != 0


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond floats
        return False


def _is_names(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(name, str) for name in value)
    return value is None or isinstance(value, str)


def _malformed(field: str, value: object, right: str) -> RequestFault:
    return RequestFault(
        f"adapter_config.json has {field} = {json.dumps(value)[:80]}; {right} is needed.",
        way_out="Save the adapter with model.save_pretrained.",
    )


def scaled(config: Mapping[str, Any], strength: float) -> dict[str, Any]:
    """The same adapter with its update B A times `strength`; whole modules (modules_to_save) stay as they are.

    Raises RequestFault for what is no positive number.
    """
    refuse_strength(strength)
    if strength == 1:
        return dict(config)
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    alphas = {name: alpha * strength for name, alpha in patterns.items()}
    alpha = alpha_of(config) * strength
    if not all(map(math.isfinite, (alpha, *alphas.values()))):
        raise RequestFault(f"{strength} times the adapter's lora_alpha is no finite number.", field="strength")
    return dict(config) | {"lora_alpha": alpha, "alpha_pattern": alphas}


def _recovered(adapter: Adapter, masks: PruningMasks) -> Update:
    return one_to_one(
        adapter,
        lambda name, shape: recovered_shape(name, shape, masks),
        lambda name, tensor: recover_tensor(name, tensor, masks),
    )


def _idle(tensors: Iterable[tuple[str, Tensor]]) -> set[str]:
    """The modules whose A, B or both are zero, and whose bias of B is too."""
    zero, moved = set(), set()
    for name, tensor in tensors:
        module, _, part = name.partition(".lora_")
        if part.endswith("bias"):
            moved |= {module} if tensor.any() else set()
        elif part and not tensor.any():
            zero.add(module)
    return zero - moved


LORA = AdapterMethod(
    peft_type="LORA",
    title="LoRA",
    naming=NAMING,
    refuse=refuse_unrecoverable,
    scale=scaled,
    recover=_recovered,
    merge=changes,
    truncate=partial(as_lora, together=Together.ALONE),
    trained={"init_lora_weights": True, "eva_config": None},
    idle=_idle,
    idle_as="B = 0",
    why="B has a row for each of the weight's, A a column",
)
