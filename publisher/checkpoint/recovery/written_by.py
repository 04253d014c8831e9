"""What an adapter_config.json means by the version of PEFT that wrote it, from 0.17 on.

Between 0.17 and 0.21 no option was renamed or removed, and no default changed. What differs is here: tensors that older
versions did not save, random numbers that they did not write down, and options that a version does not know, which PEFT
itself leaves out with a warning: the adapter would be recovered as something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from publisher.errors import RequestFault

#: of PEFT's LoraConfig, up to 0.21
LORA_OPTIONS = frozenset({
    "alora_invocation_tokens", "alpha_pattern", "arrow_config", "auto_mapping", "base_model_name_or_path", "bias",
    "corda_config", "ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "init_lora_weights", "kasa_config", "layer_replication", "layers_pattern", "layers_to_transform", "loftq_config",
    "lora_alpha", "lora_bias", "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core", "modules_to_save",
    "monteclora_config", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
    "runtime_config", "target_modules", "target_parameters", "task_type", "trainable_token_indices", "use_bdlora",
    "use_dora", "use_qalora", "use_rslora", "velora_config",
})  # fmt: skip
#: peft_type of files that are read as another's (methods/bone.py)
_READ_AS = {"BONE": "MISS"}
#: what an option that changes nothing is written as
_NOTHING: tuple[Any, ...] = (None, False, [], {}, "")


def refuse_unknown_options(config: Mapping[str, Any]) -> None:
    """Of a LoRA: RequestFault naming an option of a newer PEFT that may make another update of A and B."""
    _refuse(config, LORA_OPTIONS, "this version of loram-publisher", "Install a newer loram-publisher")


def refuse_beyond_installed(config: Mapping[str, Any]) -> None:
    """Of what PEFT's own code computes: RequestFault naming a method or option that the installed one does not know."""
    if find_spec("peft") is None:
        return
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    here, way_out = f"PEFT {version('peft')}, which is installed", f"Install PEFT {_written_by(config)}"
    known = {getattr(kind, "value", kind): config_class for kind, config_class in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    peft_type = str(config.get("peft_type")).removeprefix("PeftType.")
    peft_type = _READ_AS.get(peft_type, peft_type)
    if peft_type not in known:
        raise RequestFault(f"{here}, has no {peft_type}, which the adapter is.", way_out=f"{way_out}.")
    _refuse(config, {each.name for each in fields(known[peft_type])}, here, way_out)


def refuse_unseeded(config: Mapping[str, Any]) -> None:
    """Of methods whose parts are drawn when an adapter is made, and were not reproducible before PEFT 0.20."""
    if "random_seed" not in config:
        raise RequestFault(
            f"The adapter was saved by PEFT {_written_by(config)}, which drew parts of it that are not in the file and "
            "did not write down the seed: no version of PEFT makes the same of it again.",
            way_out="Merge it where it was trained, and recover the merged model with --from-merged; or train it again "
            "with PEFT 0.20 or newer.",
        )


def without_unsaved_biases(config: Mapping[str, Any], tensors: Iterable[str]) -> dict[str, Any]:
    """Of a config with `bias="lora_only"`: PEFT saved none before 0.21, and loads such a file as if none had been
    trained."""
    match = re.match(r"(\d+)\.(\d+)", str(config.get("peft_version")))
    older = match is None or (int(match[1]), int(match[2])) < (0, 21)  # versions before 0.18 did not say theirs
    biases = any(name.endswith("bias") and ".lora_" not in name for name in tensors)
    return dict(config) | ({"bias": "none"} if older and not biases else {})


def _refuse(config: Mapping[str, Any], known: Iterable[str], here: str, way_out: str) -> None:
    unknown = sorted(key for key in config.keys() - set(known) if config[key] not in _NOTHING)
    if unknown:
        raise RequestFault(
            f"The adapter was trained with {', '.join(unknown)}, which {here} does not know: what it does to the "
            "update would be left out.",
            way_out=f"{way_out}, or take it out of adapter_config.json if it is no option of PEFT's.",
        )


def _written_by(config: Mapping[str, Any]) -> str:
    return str(config.get("peft_version") or "0.17 or older")
