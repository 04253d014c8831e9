"""The base model with a masked update in it: W0 + scaling · (B A) ∘ M (arXiv 2502.13533, section 3.2).

How recovery ends for checkpoints that lost single weights. A weight that has no mask was not pruned and gets all of
its update. One matrix is in memory at a time; what the update does not reach is copied bit by bit.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from publisher.architecture.structure import Shape
from publisher.checkpoint.adapter_config import alpha_of
from publisher.checkpoint.adapter_folder import refuse_without_update
from publisher.checkpoint.stored_weights import StoredWeights
from publisher.checkpoint.streaming import write_tensors
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.errors import RequestFault

_PEFT_PREFIX = "base_model.model."
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

    `config` and `adapter` are adapter_config.json and the opened adapter_model.safetensors; `tensors` the latter's
    shapes. Raises RequestFault naming the tensor that does not fit or cannot be merged exactly.
    """

    def __init__(self, config: Mapping[str, Any], adapter: Any, masks: WeightMasks, base: Path) -> None:
        names: list[str] = adapter.keys()
        self.tensors: dict[str, Shape] = {name: tuple(adapter.get_slice(name).get_shape()) for name in names}
        refuse_without_update(Path("the adapter"), self.tensors)
        self.base = StoredWeights(base)
        self._config = config
        self._adapter = adapter
        self._masks = masks
        self._tied = bool(json.loads((base / "config.json").read_bytes()).get("tie_word_embeddings", False))
        self._refuse_other_base()
        #: base weight → the adapter's tensor that changes it (of A and B: B)
        self._changes = {self._target(name): name for name in self.tensors if not name.endswith((_A, _EMBEDDING_A))}

    def write(self, output: Path) -> None:
        """The merged model, in files of the base model's names, with its config and tokenizer."""
        for path in sorted(self.base.folder.iterdir()):
            if path.is_file() and path.suffix not in _WEIGHT_SUFFIXES and path.name not in _LEFT_BEHIND:
                shutil.copyfile(path, output / path.name)
        for file, weights in self.base.files.items():
            write_tensors(output / file, [self.base.entries[weight] for weight in weights], self._merged)

    def _merged(self, weight: str) -> Tensor:
        stored, name = self.base.read(weight), self._changes.get(weight)
        if name is None:
            return stored
        if name.endswith(_B):
            mask = self._masks.mask(weight) if weight in self._masks else None
            return merged_weight(stored, self._product(name, _B, _A), mask)
        if name.endswith(_EMBEDDING_B):
            return merged_weight(stored, self._product(name, _EMBEDDING_B, _EMBEDDING_A).T, None)
        change: Tensor = self._adapter.get_tensor(name)
        if name.endswith(_B_BIAS):
            return merged_weight(stored, change * self._scaling(_module(name, _B_BIAS), _A), None)
        return change.to(stored.dtype)

    def _product(self, name: str, b: str, a: str) -> Tensor:
        """scaling · B A, in float32 or better."""
        module = name.removesuffix(b)
        left, right = self._adapter.get_tensor(name), self._adapter.get_tensor(module + a)
        exact = torch.promote_types(left.dtype, torch.float32)
        product: Tensor = left.to(exact) @ right.to(exact)
        return product * self._scaling(_module(name, b), a)

    def _scaling(self, module: str, a: str) -> float:
        """As PEFT has it: alpha / rank, or alpha / √rank, each by module where the config has patterns."""
        rank = self.tensors[f"{_PEFT_PREFIX}{module}{a}"][0]
        patterns: Mapping[str, float] = self._config.get("alpha_pattern") or {}
        own = (alpha for pattern, alpha in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module))
        alpha = float(next(own, alpha_of(self._config)))
        return alpha / sqrt(rank) if self._config.get("use_rslora") else alpha / rank

    def _target(self, name: str) -> str:
        """The base weight that the adapter's tensor changes; refuses what has none, or another shape."""
        if not name.startswith(_PEFT_PREFIX):
            raise RequestFault(f"{name} is not a tensor of a PEFT adapter.")
        weight, shape = self._weight_of(name)
        entry = self.base.entries.get(weight)
        if entry is None:
            raise RequestFault(
                f"the adapter has {name}, and the base model in {self.base.folder} no {weight} to merge it into."
            )
        if entry.shape != shape or entry.dtype not in _FLOATS:
            raise RequestFault(
                f"{name} is for a weight of shape {shape}; {weight} of the base model is {entry.dtype} {entry.shape}.",
                way_out="Name the full-precision base model that the checkpoint was made from.",
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
        weight = name.removeprefix(_PEFT_PREFIX).replace(".base_layer.", ".")
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
        if partner not in self.tensors or self.tensors[partner][0] != self.tensors[name][1]:
            raise RequestFault(f"the adapter has {name} without a {partner} of the same rank.")
        return self.tensors[partner]

    def _refuse_tied(self, name: str) -> None:
        if self._tied:
            raise RequestFault(
                f"{name} is an update of embeddings that the base model also uses as its LM head, where it was not "
                "trained: merging it would change both.",
                way_out="Train without embed_tokens in target_modules.",
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


def _module(name: str, part: str) -> str:
    """The module's name in the model, of an adapter's tensor."""
    return name.removeprefix(_PEFT_PREFIX).removesuffix(part).replace(".base_layer.", ".")
