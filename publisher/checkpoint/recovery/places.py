"""Which tensors PEFT looks for when it loads an adapter: PEFT itself says so, on the model without its weights.

PEFT takes in silence what it does not look for, and the large model then answers as if there were no adapter. So the
model is built on the meta device (no memory, a second for 80 layers), gets the adapter that adapter_config.json
describes, and every tensor that was saved has to have its place there.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftType, get_peft_model, get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from publisher.architecture.structure import Shape
from publisher.checkpoint.recovery.folder import for_base_model
from publisher.checkpoint.recovery.naming import PEFT_PREFIX, Naming
from publisher.errors import RequestFault

#: Parts of names that wrappers of a model put before or into the names of its modules.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
#: Parts that only lead to the decoder: PEFT's, DDP's, and those of the models that a decoder is one part of.
_LEADING = frozenset({"base_model", "model", "module", "language_model", "text_model"})
#: What an adapter's own name follows, where a state dict was saved as it is, besides parts of its method
_NAMED = frozenset({"modules_to_save", "trainable_tokens_delta"})
#: PEFT's task types whose head is no LM head: no checkpoint has it, and all of it is the adapter's own.
_CLASSIFIERS: Mapping[str, Any] = {
    "SEQ_CLS": AutoModelForSequenceClassification,
    "TOKEN_CLS": AutoModelForTokenClassification,
}
#: What PEFT raises for values that it cannot take: bad regular expressions, unknown kinds of biases, absurd ranks.
NOT_FITTING = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, re.error)
_LORA = Naming((".lora_",))
_NOT_SAVED = (".original_module.", ".modules_to_save.", ".trainable_tokens_")


#: Of a config: which modules are adapted, and which are trained whole. What other methods have of it, LoRA has too.
_CHOOSING = (
    "task_type", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save",
    "trainable_token_indices", "auto_mapping",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A linear layer of the checkpoint that the adapter adapts: (out, in), and whether it has a bias."""

    shape: Shape
    biased: bool


@dataclass(frozen=True)
class AdapterPlaces:
    """`naming` is the method's. `wanted`: what PEFT loads, with its shape on the model; `also`: other parameters that
    a file may hold.

    `vocabulary` is the size that resizing embeddings changes, `embeddings` the modules that have it, of which
    `input_embeddings` is what the head is where it is tied. `leading`: parts of names that lead to the decoder.
    `classifiers`: heads of the adapter's own, of as many labels as it has; `loaded_by`: the class that has them.
    `targets`: the linear layers that are adapted, by name in the model.
    """

    naming: Naming
    wanted: Mapping[str, Shape]
    also: Mapping[str, Shape]
    vocabulary: int
    embeddings: frozenset[str]
    input_embeddings: str
    leading: frozenset[str] = field(default=_LEADING)
    classifiers: frozenset[str] = frozenset()
    loaded_by: str = AutoModelForCausalLM.__name__
    targets: Mapping[str, Target] = field(default_factory=dict)

    def names(self, saved: Iterable[str]) -> dict[str, str]:
        """PEFT's name → the one it was saved under. RequestFault for what has no place, more than one, or one twice."""
        known = self.wanted.keys() | self.also.keys()
        by_core: dict[str, list[str]] = {}
        for name in sorted(known):
            by_core.setdefault(self._core(name), []).append(name)
        found: dict[str, str] = {}
        for name in sorted(saved):
            place = name if name in known else self._only(name, by_core.get(self._core(name), []))
            if place in found:
                raise RequestFault(
                    f"The adapter has {found[place]} and {name}, which are both {place}.",
                    way_out="Save one adapter, with model.save_pretrained.",
                )
            found[place] = name
        return found

    def resized(self, name: str, shape: Shape) -> list[int]:
        """The vocabulary of a tensor of embeddings or head, if it is not the model's."""
        expected = self.wanted[name] if name in self.wanted else self.also[name]
        if self.naming.module_of(name) not in self.embeddings:
            return []
        return [size for size, wanted in zip(shape, expected, strict=True) if wanted == self.vocabulary != size]

    def of_classifiers(self, names: Iterable[str]) -> list[str]:
        """Of `names` (PEFT's) the parameters of heads that are the adapter's own."""
        return [
            name for name in names if self.naming.module_of(name) in self.classifiers and self.naming.is_whole(name)
        ]

    def labels(self, shapes: Mapping[str, Shape]) -> int | None:
        """How many classes the adapter's head tells apart; None: it has none of its own."""
        return max((shapes[name][0] for name in self.of_classifiers(shapes)), default=None)

    def refuse_misfit(self, name: str, shape: Shape) -> None:
        """`name` is PEFT's. Only the vocabulary may have another size: of resized embeddings."""
        expected = self.wanted[name] if name in self.wanted else self.also[name]
        free = self.vocabulary if self.naming.module_of(name) in self.embeddings else None
        if self.naming.module_of(name) in self.classifiers:
            expected = (*shape[:1], *expected[1:])
        fits = len(shape) == len(expected) and all(
            wanted in (size, free) for size, wanted in zip(shape, expected, strict=True)
        )
        if not fits:
            raise RequestFault(
                f"The adapter does not fit its adapter_config.json: {name} has shape {shape}, PEFT makes {expected}.",
                way_out="Save it with model.save_pretrained, and recover it with the checkpoint it was trained on.",
            )

    def missing(self, names: Iterable[str]) -> list[str]:
        """What PEFT looks for and `names` (PEFT's) do not have; RequestFault for what it cannot do without."""
        there = set(names)
        begun = {self.naming.adapted(name) for name in there if not self.naming.is_whole(name)}
        missing = sorted(self.wanted.keys() - there)
        for name in missing:
            if self.naming.is_whole(name) or self.naming.adapted(name) in begun:
                raise RequestFault(
                    f"The adapter has no {name}, which its adapter_config.json promises.",
                    way_out="Save it again with model.save_pretrained.",
                )
        return missing

    def _only(self, name: str, places: list[str]) -> str:
        if len(places) == 1:
            return places[0]
        if places:
            raise RequestFault(f"{name} could be {' or '.join(places)}.", way_out="Name it as PEFT does.")
        raise RequestFault(
            f"{name} has no place in the model: adapter_config.json does not name what it belongs to, or it is of "
            "another model, and PEFT would leave it out in silence.",
            way_out="Save it with model.save_pretrained, and recover it with the checkpoint it was trained on.",
        )

    def _core(self, name: str) -> str:
        """The name without what wrappers, wholes and the adapter's own name add to it."""
        parts = [part for part in name.split(".") if part not in _WRAPPERS]
        start = next((i for i, part in enumerate(parts) if part not in self.leading), len(parts))
        kept: list[str] = []
        for part in parts[start:]:
            if not (kept and self._is_named(kept[-1]) and part not in ("weight", "bias")):
                kept.append(part)
        return ".".join(part for part in kept if part != "modules_to_save")

    def _is_named(self, part: str) -> bool:
        return part in _NAMED or not self.naming.is_whole(f".{part}")


def places(model_folder: Path, config: Mapping[str, Any], naming: Naming) -> AdapterPlaces:
    """Of the adapter that `config` (adapter_config.json) describes, on the model whose config is in `model_folder`.

    Its method has `naming`, and `config` nothing any more of how its training starts.

    Raises RequestFault if PEFT finds nothing to adapt there, or the model cannot be built.
    """
    auto = _CLASSIFIERS.get(str(config.get("task_type")).removeprefix("TaskType."), AutoModelForCausalLM)
    model = _empty_model(model_folder, auto)
    vocabulary, (first, embeddings) = model.config.get_text_config().vocab_size, _embeddings(model)
    leading = _LEADING | {model.base_model_prefix}
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
    classifiers = frozenset[str]() if auto is AutoModelForCausalLM else frozenset(outside)
    targets = dict(_targets(adapted))
    return AdapterPlaces(
        naming, wanted, also, vocabulary, embeddings, first, leading, classifiers, auto.__name__, targets
    )


def places_of_modules(
    model_folder: Path, config: Mapping[str, Any], naming: Naming, shapes: Mapping[str, Shape]
) -> AdapterPlaces:
    """As `places`, for methods that cannot be made on a model without weights: the modules are found as LoRA finds
    them, and parts of the update, of these `shapes`, have their places where they say; whether PEFT loads them shows
    when it does (realised.py)."""
    chosen = {key: config[key] for key in _CHOOSING if key in config}
    found = places(model_folder, chosen | {"peft_type": "LORA", "r": 1}, _LORA)
    wholes = {name: shape for name, shape in found.wanted.items() if _LORA.is_whole(name)}
    own = {name: shape for name, shape in shapes.items() if not naming.is_whole(name)}
    return replace(found, naming=naming, wanted=wholes | own)


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
        raise RequestFault(
            f"The adapter's adapter_config.json, with target_modules {str(config.get('target_modules'))[:200]}, does "
            f"not fit the model: {_first_line(error)}",
            way_out="Recover it with the checkpoint it was trained on.",
        ) from error


def _empty_model(folder: Path, auto: Any) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(folder)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        with torch.device("meta"):
            model: PreTrainedModel = auto.from_config(config, attn_implementation="eager")
    except (ValueError, TypeError, KeyError, OSError, AttributeError) as error:
        raise RequestFault(f"{folder / 'config.json'} makes no model: {_first_line(error)}") from error
    return model


def _embeddings(model: PreTrainedModel) -> tuple[str, frozenset[str]]:
    """Names of the input embeddings, and of these and the head."""
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    names = {end: name for end in ends for name, module in model.named_modules() if module is end}
    return names[ends[0]], frozenset(names.values())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
