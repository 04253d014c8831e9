"""Which tensors a LoRA has on a model, by its adapter_config.json: as PEFT 0.17 to 0.21 choose modules and name them.

For what nearly all LoRAs are: linear layers and embeddings, ranks by pattern, modules that are saved whole. Whatever
else a config asks for PEFT is asked itself (peft_places.py). That both say the same of every family is tested.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publisher.architecture.structure import Shape
from publisher.checkpoint.recovery.changes import Target
from publisher.checkpoint.recovery.naming import PEFT_PREFIX
from publisher.checkpoint.recovery.skeleton import Kind, Module, Skeleton

#: what says nothing of names and shapes, or is understood here
_UNDERSTOOD = frozenset({
    "peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping",
    "r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora", "init_lora_weights", "lora_bias",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save",
    "fan_in_fan_out", "loftq_config", "megatron_core", "runtime_config", "qalora_group_size",
})  # fmt: skip
_CAUSAL = (None, "CAUSAL_LM", "TaskType.CAUSAL_LM")
_ALL_LINEAR = "all-linear"
_DEFAULT_RANK = 8
#: From so many target_modules on PEFT looks for fewer that mean the same, but for layers_to_transform, which does not
#: hold for a module's full name.
_CONDENSED_FROM = 20


class NotPlain(Exception):
    """The config or the model has something that is not understood here."""


def is_plain(config: Mapping[str, Any]) -> bool:
    """Whether `lora_places` understands all of a LoRA's config."""
    asked = {key for key, value in config.items() if value and value != "none"}
    understood = asked <= _UNDERSTOOD and not isinstance(config.get("modules_to_save"), str)
    return understood and config.get("task_type") in _CAUSAL and bool(config.get("target_modules"))


@dataclass(frozen=True)
class LoraPlaces:
    """`wanted`: what PEFT loads for the adapter; `also`: what a file may hold beside; names → shapes. `targets`: the
    linear layers that are adapted, by name."""

    wanted: Mapping[str, Shape]
    also: Mapping[str, Shape]
    targets: Mapping[str, Target]


def lora_places(skeleton: Skeleton, config: Mapping[str, Any]) -> LoraPlaces:
    """Raises ValueError, TypeError or re.error for a config that PEFT does not take, NotPlain for what is not
    understood."""
    whole = _saved_whole(skeleton, config)
    adapted = _adapted(skeleton, config)
    wanted: dict[str, Shape] = {}
    also: dict[str, Shape] = {}
    for name, module in skeleton.modules.items():
        inner = ".base_layer" if name in adapted else ""
        own = {f"{PEFT_PREFIX}{name}{inner}.{parameter}": shape for parameter, shape in module.parameters.items()}
        (wanted if _is_within(name, whole) else also).update(own)
        if name in adapted:
            factors = _factors(module, _rank(name, config), bool(config.get("lora_bias")))
            wanted |= {f"{PEFT_PREFIX}{name}.{part}": shape for part, shape in factors}
    targets = {
        name: Target(module.parameters["weight"], "bias" in module.parameters)
        for name, module in adapted.items()
        if module.kind is Kind.LINEAR
    }
    return LoraPlaces(wanted, also, targets)


def _adapted(skeleton: Skeleton, config: Mapping[str, Any]) -> dict[str, Module]:
    """In the model's order."""
    if skeleton.experts:
        raise NotPlain("experts")
    for key in (*(config.get("alpha_pattern") or ()), *(config.get("rank_pattern") or ())):
        re.compile(key)
    targets = config["target_modules"]
    by_layer = config.get("layers_to_transform")
    if by_layer is not None and not isinstance(targets, str) and len(targets) >= _CONDENSED_FROM:
        raise NotPlain("many targets")
    if isinstance(targets, str) and by_layer is not None:
        raise ValueError("layers_to_transform cannot be used with a pattern as target_modules.")
    if config.get("layers_pattern") and not by_layer and by_layer != 0:
        raise ValueError("layers_pattern needs layers_to_transform.")
    if isinstance(targets, str) and targets.lower() == _ALL_LINEAR:
        linear = (name for name, module in skeleton.modules.items() if module.kind is Kind.LINEAR)
        config = {**config, "target_modules": [name for name in linear if name != skeleton.head]}
    found = {name: module for name, module in skeleton.modules.items() if _is_target(name, config)}
    if not found:
        raise ValueError("no module of the model is one of them.")
    for name, module in found.items():
        if module.kind is Kind.OTHER or (module.kind is Kind.EMBEDDING and config.get("lora_bias")):
            raise NotPlain(name)
    return found


def _is_target(name: str, config: Mapping[str, Any]) -> bool:
    """As PEFT's check_target_module_exists."""
    excluded, targets = config.get("exclude_modules"), config["target_modules"]
    if excluded and (re.fullmatch(excluded, name) if isinstance(excluded, str) else _ends(name, excluded)):
        return False
    if any(re.match(rf"(^|.*\.){whole}($|\..*)", name) for whole in config.get("modules_to_save") or ()):
        return False
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    if name in targets:
        return True
    return _ends(name, targets) and _is_in_layers(name, config)


def _is_in_layers(name: str, config: Mapping[str, Any]) -> bool:
    layers = config.get("layers_to_transform")
    if layers is None or layers == []:
        return True
    pattern = config.get("layers_pattern") or ()
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    tried = (
        [rf"(?:^|.*?\.){each}\.(?P<idx>\d+)\." for each in patterns] if patterns else [r".*?\.[^.]*\.(?P<idx>\d+)\."]
    )
    match = next(filter(None, (re.match(each, name) for each in tried)), None)
    if match is None:
        return False
    return int(match["idx"]) in ([layers] if isinstance(layers, int) else layers)


def _ends(name: str, with_any: Iterable[str]) -> bool:
    return any(name == end or name.endswith(f".{end}") for end in with_any)


def _rank(name: str, config: Mapping[str, Any]) -> int:
    patterns: Mapping[str, int] = config.get("rank_pattern") or {}
    own = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", name)), None)
    asked = config.get("r") if own is None else patterns[own]
    return _DEFAULT_RANK if asked is None else int(asked)


def _factors(module: Module, rank: int, biased: bool) -> Iterator[tuple[str, Shape]]:
    rows, columns = module.parameters["weight"]
    if module.kind is Kind.EMBEDDING:
        yield "lora_embedding_A", (rank, rows)
        yield "lora_embedding_B", (columns, rank)
        return
    yield "lora_A.weight", (rank, columns)
    yield "lora_B.weight", (rows, rank)
    if biased:
        yield "lora_B.bias", (rows,)


def _saved_whole(skeleton: Skeleton, config: Mapping[str, Any]) -> list[str]:
    """modules_to_save, which PEFT finds by how names end, whether or not a part of a name begins there."""
    ends = tuple(config.get("modules_to_save") or ())
    found = [name for name in skeleton.modules if ends and name.endswith(ends)]
    if any(_is_within(name, [other for other in found if other != name]) for name in found):
        raise NotPlain(found[0])
    return found


def _is_within(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
