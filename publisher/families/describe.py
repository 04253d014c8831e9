"""From config.json to a Geometry, without loading torch into a process that does without (the API)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from publisher import IDLE_THREADS
from publisher.architecture.geometry import Geometry
from publisher.errors import InfrastructureFault, UnsupportedModel
from publisher.families.known import refusal
from publisher.families.shared_answers import SharedAnswers
from publisher.files.json_object import refuse_nan

#: importing torch and transformers takes 5 s on an idle machine, a minute on a busy one with a cold disk
_TIMEOUT_SECONDS = 180
_GEOMETRY = TypeAdapter(Geometry)
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
          "head_dim", "vocab_size")  # fmt: skip
#: which programs compute attention and experts is the business of the machine that a model is loaded on
_KERNELS = tuple(f"{start}{what}_implementation{end}" for what in ("attn", "experts") for start, end in (
    ("", ""), ("_", ""), ("_", "_internal"), ("_", "_autoset")))  # fmt: skip


def without_kernels(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json without the kernels that whoever saved it had (flash-attn), which need not be installed here."""
    return {key: value for key, value in config.items() if key not in _KERNELS}


def kernel_notes(config: Mapping[str, Any]) -> list[str]:
    """What `without_kernels` leaves out."""
    named = [f"{key} = {config[key]!r}" for key in _KERNELS if config.get(key)]
    return [f"config.json has {name}: left out, every machine takes what it has" for name in named]


def describe(config: Mapping[str, Any]) -> Geometry:
    """The geometry of the model that transformers builds from `config`.

    Raises UnsupportedModel with the key or the property of the family that stands in the way.
    """
    refuse_unusable(config)
    refuse_family(str(config.get("model_type")))
    text = json.dumps(without_kernels(config), sort_keys=True)
    return _here(text) if "torch" in sys.modules else _elsewhere(text)


def refuse_unusable(config: Mapping[str, Any]) -> None:
    """What can be refused without knowing the family's code."""
    refuse_nan(config, "config.json", UnsupportedModel)
    if config.get("auto_map"):
        raise UnsupportedModel(
            "config.json asks for remote code (auto_map), which is never run here.",
            way_out="Use a model that transformers implements itself.",
        )
    for key in ("quantization_config", "per_layer_config"):
        if config.get(key):
            raise UnsupportedModel(
                f"config.json has {key}: the model is already quantized or pruned.",
                way_out="Register the original, full-precision model.",
            )
    for key in _SIZES:
        value = config.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise UnsupportedModel(f"config.json has {key} = {value!r}; a positive whole number is needed.")


def refuse_family(family: str) -> None:
    """What the oracle of families found against this one."""
    reason = refusal(family)
    if reason is not None:
        raise UnsupportedModel(f"family {family!r} is not supported: {reason}.", way_out="See publisher families.")


@lru_cache(maxsize=64)
def _here(text: str) -> Geometry:
    from publisher.families.introspection import geometry_of

    return geometry_of(json.loads(text))


def _elsewhere(text: str) -> Geometry:
    """The same in a process of its own."""
    answer = _processes.answer(text)
    if "refused" in answer:
        raise UnsupportedModel(answer["refused"], way_out=answer["way_out"])
    return _GEOMETRY.validate_python(answer["geometry"])


def _run_process(text: str) -> dict[str, Any]:
    """What the process says of one config.json."""
    try:
        process = subprocess.run(
            [sys.executable, "-m", "publisher.families.introspection"],
            input=text,
            capture_output=True,
            text=True,
            env=IDLE_THREADS | os.environ,
            timeout=_TIMEOUT_SECONDS,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise InfrastructureFault(
            f"the process that looks at the model's config failed: {_last_line(error.stderr) or error}",
            way_out="Try again; if it repeats, see whether the machine has memory left.",
        ) from error
    return dict(json.loads(process.stdout))


#: each imports torch, which takes seconds of a core and hundreds of MB: one at a time
_processes = SharedAnswers(_run_process, kept=64)


def _last_line(text: str | bytes | None) -> str:
    decoded = text.decode(errors="replace") if isinstance(text, bytes) else text or ""
    return decoded.strip().rpartition("\n")[2]
