"""The base model with a masked update in it: W0 + scaling · (B A) ∘ M (arXiv 2502.13533, section 3.2).

How recovery ends for checkpoints that lost single weights. A weight that has no mask was not pruned and gets all of
its update. One matrix is in memory at a time; what the update does not reach is copied bit by bit.
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from publisher.architecture.structure import Shape
from publisher.checkpoint.adapter_config import alpha_of
from publisher.checkpoint.adapter_places import PEFT_PREFIX, AdapterPlaces, module_of
from publisher.checkpoint.adapter_tensors import AdapterTensors
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.checkpoint.whole_parameters import (
    TOKENS,
    WholeParameters,
    is_whole,
    parameter_of,
    refuse_overflow,
    token_indices,
)
from publisher.errors import RequestFault
from publisher.weights.folder import StoredWeights
from publisher.weights.writing import write_tensors

_A, _B, _B_BIAS = ".lora_A.weight", ".lora_B.weight", ".lora_B.bias"
_EMBEDDING_A, _EMBEDDING_B = ".lora_embedding_A", ".lora_embedding_B"
_FLOATS = ("F64", "F32", "F16", "BF16")
#: Files of a model's folder that hold weights, in whatever format, and so do not come along; the card is another's.
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
_LEFT_BEHIND = ("README.md", ".gitattributes")


def merged_weight(weight: Tensor, update: Tensor, mask: Tensor | None) -> Tensor:
    """`weight` (out, in) plus `update` where `mask` keeps it, rounded once to the weight's dtype."""
    exact = torch.promote_types(torch.promote_types(weight.dtype, update.dtype), torch.float32)
    merged = (weight.to(exact) + update.to(exact)).to(weight.dtype)
    return merged if mask is None else torch.where(mask, merged, weight)


class Merge:
    """An adapter, the masks of the checkpoint it was trained on, and the base model: all checked when it is made.

    `config` is adapter_config.json, `tensors` the shapes of what `adapter` holds; without `whole` it may hold no whole
    parameters. Raises RequestFault naming the tensor that does not fit or cannot be merged exactly.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        adapter: AdapterTensors,
        masks: WeightMasks,
        base: Path,
        whole: WholeParameters | None = None,
    ) -> None:
        self.tensors: dict[str, Shape] = adapter.shapes
        self.base = StoredWeights(base)
        self._config = config
        self._adapter = adapter
        self._masks = masks
        self._whole = whole
        self._places = None if whole is None else whole.places
        self._tied = _is_tied(self.base, self._places)
        self._refuse_activated()
        self._refuse_other_base()
        #: base weight → the adapter's tensors that change it (of A and B: B), what replaces all of it first
        self._changes: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self.tensors, key=lambda name: (not is_whole(name), name)):
            if not name.endswith((_A, _EMBEDDING_A)):
                self._changes[self._target(name)].append(name)
        for name in filter(is_whole, self.tensors):
            self._replaced(name)
            if self._is_copy_of_embeddings(name):
                self._refuse_tied(name)

    def write(self, output: Path) -> None:
        """The merged model, in files of the base model's names, with its config and tokenizer."""
        for path in sorted(self.base.folder.iterdir()):
            if path.is_file() and path.suffix not in _WEIGHT_SUFFIXES and path.name not in _LEFT_BEHIND:
                shutil.copyfile(path, output / path.name)
        for file, weights in self.base.files.items():
            write_tensors(output / file, [self.base.entries[weight] for weight in weights], self._merged)

    def _merged(self, weight: str) -> Tensor:
        stored = self.base.read(weight)
        merged = stored
        for name in self._changes.get(weight, ()):
            merged = self._changed(merged, weight, name)
        if merged is not stored:
            refuse_overflow(weight, merged)
        return merged

    def _changed(self, weight: Tensor, weight_name: str, name: str) -> Tensor:
        """`weight` with what the adapter's tensor `name` does to it."""
        if is_whole(name):
            return self._with_whole(weight, name)
        if name.endswith(_B):
            mask = self._masks.mask(weight_name) if weight_name in self._masks else None
            return merged_weight(weight, self._product(name, _B, _A), mask)
        if name.endswith(_EMBEDDING_B):
            return merged_weight(weight, self._product(name, _EMBEDDING_B, _EMBEDDING_A).T, None)
        change = self._read(name) * self._scaling(_module(name, _B_BIAS), _A)
        return merged_weight(weight, change, None)

    def _with_whole(self, weight: Tensor, name: str) -> Tensor:
        recovered = self._replaced(name).to(weight.dtype)
        if not name.endswith(TOKENS):
            return recovered
        return weight.index_copy(0, token_indices(name, self._config), recovered)

    def _replaced(self, name: str) -> Tensor:
        """What a whole tensor of the adapter is for the base model."""
        if self._whole is None:
            raise RequestFault(f"{name} is a whole parameter, and what it was before training is not known.")
        return self._whole.recovered(name, self._adapter.read(name))

    def _read(self, name: str) -> Tensor:
        """torch computes with no floats of 8 bits."""
        tensor = self._adapter.read(name)
        return tensor.float() if tensor.itemsize == 1 else tensor

    def _product(self, name: str, b: str, a: str) -> Tensor:
        """scaling · B A, in float32 or better."""
        module = name.removesuffix(b)
        left, right = self._read(name), self._read(module + a)
        exact = torch.promote_types(left.dtype, torch.float32)
        product: Tensor = left.to(exact) @ right.to(exact)
        return product * self._scaling(_module(name, b), a)

    def _scaling(self, module: str, a: str) -> float:
        """As PEFT has it: alpha / rank, or alpha / √rank, each by module where the config has patterns."""
        rank = self.tensors[f"{PEFT_PREFIX}{module}{a}"][0]
        patterns: Mapping[str, float] = self._config.get("alpha_pattern") or {}
        own = (alpha for pattern, alpha in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module))
        alpha = float(next(own, alpha_of(self._config)))
        return alpha / sqrt(rank) if self._config.get("use_rslora") else alpha / rank

    def _target(self, name: str) -> str:
        """The base weight that the adapter's tensor changes; refuses what has none, or another shape."""
        weight, shape = self._weight_of(name)
        entry = self.base.entries.get(weight)
        if entry is None:
            raise RequestFault(
                f"the adapter has {name}, and the base model in {self.base.folder} no {weight} to merge it into."
            )
        if name.endswith(TOKENS):
            shape = (*entry.shape[:1], *shape[1:])
        if entry.shape != shape or entry.dtype not in _FLOATS:
            raise RequestFault(
                f"{name} is for a weight of shape {shape}; {weight} of the base model is {entry.dtype} {entry.shape}.",
                way_out="Name the full-precision base model that the checkpoint was made from; if training resized its "
                "embeddings, resize the base model's, save it, and name that.",
            )
        return weight

    def _weight_of(self, name: str) -> tuple[str, Shape]:
        """The base weight's name, and the shape that it has to have."""
        shape = self.tensors[name]
        if name.endswith(_B):
            return f"{_module(name, _B)}.weight", (shape[0], self._partner(name, _B, _A)[1])
        if name.endswith(_EMBEDDING_B):
            self._refuse_tied(name)
            return f"{_module(name, _EMBEDDING_B)}.weight", (
                self._partner(name, _EMBEDDING_B, _EMBEDDING_A)[1],
                shape[0],
            )
        if name.endswith(_B_BIAS):
            return f"{_module(name, _B_BIAS)}.bias", shape
        weight = parameter_of(name)
        if ".lora_" in name:
            raise RequestFault(f"{name} is not part of a plain LoRA and cannot be recovered.")
        if weight in self._masks:
            raise RequestFault(
                f"{name} is a whole copy of a pruned weight (modules_to_save), not an update: what was pruned would be "
                "lost from the base model.",
                way_out="Train this layer through LoRA alone.",
            )
        return weight, shape

    def _partner(self, name: str, b: str, a: str) -> Shape:
        partner = name.removesuffix(b) + a
        if partner not in self.tensors or self.tensors[partner][:1] != self.tensors[name][1:]:
            raise RequestFault(f"the adapter has {name} without a {partner} of the same rank.")
        return self.tensors[partner]

    def _refuse_tied(self, name: str) -> None:
        if self._tied:
            raise RequestFault(
                f"{name} is an update of embeddings that the base model also uses as its LM head, where it was not "
                "trained: merging it would change both.",
                way_out="Train without embed_tokens in target_modules and modules_to_save.",
            )

    def _is_copy_of_embeddings(self, name: str) -> bool:
        """Whether PEFT trained it beside the head (modules_to_save); tokens, and what is one with the head, are not."""
        copies, module = self._config.get("modules_to_save") or (), module_of(name)
        own = self._places is not None and module == self._places.input_embeddings
        return own and not name.endswith(TOKENS) and any(module.endswith(copy) for copy in copies)

    def _refuse_activated(self) -> None:
        if self._config.get("alora_invocation_tokens"):
            raise RequestFault(
                "The adapter was trained with alora_invocation_tokens: it acts behind these tokens alone, which a "
                "merged model does everywhere.",
                way_out="Train a plain LoRA.",
            )

    def _refuse_other_base(self) -> None:
        for weight in self._masks.weights:
            entry = self.base.entries.get(weight)
            if entry is None or entry.shape != self._masks.shape(weight):
                found = "no such weight" if entry is None else f"one of shape {entry.shape}"
                raise RequestFault(
                    f"{self.base.folder} is not the base model: the checkpoint has a mask for {weight} of shape "
                    f"{self._masks.shape(weight)}, and there is {found}."
                )


def _is_tied(weights: StoredWeights, places: AdapterPlaces | None) -> bool:
    """Whether the head is the embeddings. Families differ in what holds where config.json does not say it, and a head
    that the files have is one of its own."""
    heads = set() if places is None else places.embeddings - {places.input_embeddings}
    says = AutoConfig.from_pretrained(weights.folder).get_text_config().tie_word_embeddings
    return bool(says) and not any(f"{head}.weight" in weights.entries for head in heads)


def _module(name: str, part: str) -> str:
    """The module's name in the model, of an adapter's tensor."""
    return name.removeprefix(PEFT_PREFIX).removesuffix(part).replace(".base_layer.", ".")
