"""Which tensors PEFT looks for when it loads an adapter, and where what was saved under other names belongs.

PEFT takes in silence what it does not look for, and the large model then answers as if there were no adapter. So every
tensor that was saved has to have its place on the model. For LoRA the places are told by lora_places.py; for all other
methods, and for a LoRA's rarer options, PEFT itself is asked (peft_places.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from publisher.architecture.structure import Shape
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.changes import Target
from publisher.checkpoint.recovery.lora_places import NotPlain, is_plain, lora_places
from publisher.checkpoint.recovery.naming import Naming
from publisher.checkpoint.recovery.skeleton import skeleton_of
from publisher.errors import RequestFault

#: Parts of names that wrappers of a model put before or into the names of its modules.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
#: Parts that only lead to the decoder: PEFT's, DDP's, and those of the models that a decoder is one part of.
LEADING = frozenset({"base_model", "model", "module", "language_model", "text_model"})
#: What an adapter's own name follows, where a state dict was saved as it is, besides parts of its method
_NAMED = frozenset({"modules_to_save", "trainable_tokens_delta"})
CAUSAL = "AutoModelForCausalLM"
#: What values that cannot be taken raise: bad regular expressions, unknown kinds of biases, absurd ranks.
NOT_FITTING = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, re.error)
_LORA = Naming((".lora_",))

#: Of a config: which modules are adapted, and which are trained whole. What other methods have of it, LoRA has too.
_CHOOSING = (
    "task_type", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save",
    "trainable_token_indices", "auto_mapping",
)  # fmt: skip


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
    leading: frozenset[str] = field(default=LEADING)
    classifiers: frozenset[str] = frozenset()
    loaded_by: str = CAUSAL
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


def places(model_folder: Path, config: Mapping[str, Any], naming: Naming, masks: PruningMasks) -> AdapterPlaces:
    """Of the adapter that `config` (adapter_config.json) describes, on the model whose config is in `model_folder`.

    Its method has `naming`, and `config` nothing any more of how its training starts. `masks` are the model's.
    Raises RequestFault if nothing is found to adapt there, or the model cannot be built, and MissingExtra where PEFT
    has to be asked and is not installed.
    """
    if str(config.get("peft_type")).removeprefix("PeftType.") == "LORA" and is_plain(config):
        try:
            return _of_lora(model_folder, config, naming, masks)
        except NotPlain:
            pass
    from publisher.checkpoint.recovery.peft_places import peft_places

    return peft_places(model_folder, config, naming)


def places_of_modules(
    model_folder: Path, config: Mapping[str, Any], naming: Naming, shapes: Mapping[str, Shape], masks: PruningMasks
) -> AdapterPlaces:
    """As `places`, for methods that cannot be made on a model without weights: the modules are found as LoRA finds
    them, and parts of the update, of these `shapes`, have their places where they say; whether PEFT loads them shows
    when it does (realised.py)."""
    chosen = {key: config[key] for key in _CHOOSING if key in config}
    found = places(model_folder, chosen | {"peft_type": "LORA", "r": 1}, _LORA, masks)
    wholes = {name: shape for name, shape in found.wanted.items() if _LORA.is_whole(name)}
    own = {name: shape for name, shape in shapes.items() if not naming.is_whole(name)}
    return replace(found, naming=naming, wanted=wholes | own)


def _of_lora(model_folder: Path, config: Mapping[str, Any], naming: Naming, masks: PruningMasks) -> AdapterPlaces:
    skeleton = skeleton_of(model_folder, masks)
    try:
        found = lora_places(skeleton, config)
    except NOT_FITTING as error:
        raise unfit(config, error) from error
    also = {name: shape for name, shape in found.also.items() if naming.is_whole(name)}
    return AdapterPlaces(
        naming,
        found.wanted,
        also,
        skeleton.vocabulary,
        skeleton.vocabulary_modules,
        skeleton.embeddings,
        LEADING | {skeleton.decoder},
        targets=found.targets,
    )


def unfit(config: Mapping[str, Any], error: Exception) -> RequestFault:
    """For a config of which `error` says that it does not fit the model."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return RequestFault(
        f"The adapter's adapter_config.json, with target_modules {str(config.get('target_modules'))[:200]}, does "
        f"not fit the model: {said}",
        way_out="Recover it with the checkpoint it was trained on.",
    )
