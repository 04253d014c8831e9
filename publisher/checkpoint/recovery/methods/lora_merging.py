"""What a LoRA changes of the base model's weights: scaling · (B A) ∘ M, and biases of B."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import sqrt

import torch
from torch import Tensor

from publisher.architecture.structure import Shape
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.merging import merged_weight
from publisher.checkpoint.recovery.method import Change, Config
from publisher.checkpoint.recovery.methods.lora_placement import (
    B_BIAS,
    EMBEDDING_A,
    EMBEDDING_B,
    A,
    B,
    recover_tensor,
    recovered_shape,
)
from publisher.checkpoint.recovery.model_copy import Rows
from publisher.checkpoint.recovery.naming import PEFT_PREFIX
from publisher.errors import RequestFault


def changes(adapter: Adapter, masks: PruningMasks) -> Iterator[Change]:
    """Of B (with its A) and of biases: RequestFault for what acts in some places only, or has no partner."""
    _refuse_activated(adapter.config)
    factors = _Factors(adapter, masks)
    for name in adapter.tensors.updates:
        if name.endswith(B):
            yield factors.of_matrix(name)
        elif name.endswith(EMBEDDING_B):
            yield factors.of_embeddings(name)
        elif name.endswith(B_BIAS):
            yield factors.of_bias(name)
        elif not name.endswith((A, EMBEDDING_A)):
            raise RequestFault(f"{name} is not part of a plain LoRA and cannot be recovered.")


def alpha_of(config: Config) -> float:
    """Of all modules that `alpha_pattern` does not name."""
    alpha: float | None = config.get("lora_alpha")
    return 8 if alpha is None else alpha


@dataclass(frozen=True)
class _Factors:
    """A, B and biases, in the base model's shapes."""

    adapter: Adapter
    masks: PruningMasks

    def of_matrix(self, name: str) -> Change:
        weight = f"{_module(name, B)}.weight"
        shape = (self._shape(name)[0], self._partner(name, B, A)[1])
        rows = partial(self._rows, name, weight)
        return Change(name, weight, shape, lambda found: rows(found)(slice(None)), by_rows=rows)

    def of_embeddings(self, name: str) -> Change:
        shape = (self._partner(name, EMBEDDING_B, EMBEDDING_A)[1], self._shape(name)[0])
        merged = partial(self._with_embeddings, name)
        return Change(name, f"{_module(name, EMBEDDING_B)}.weight", shape, merged, embeds=True)

    def of_bias(self, name: str) -> Change:
        return Change(name, f"{_module(name, B_BIAS)}.bias", self._shape(name), partial(self._with_bias, name))

    def _rows(self, name: str, weight_name: str, weight: Tensor) -> Rows:
        left = self._exact(name) * self._scaling(_module(name, B), A)
        return rows_with_product(weight, left, self._exact(name.removesuffix(B) + A), self.masks.mask_of(weight_name))

    def _with_embeddings(self, name: str, weight: Tensor) -> Tensor:
        return merged_weight(weight, self._product(name, EMBEDDING_B, EMBEDDING_A).T, None)

    def _with_bias(self, name: str, bias: Tensor) -> Tensor:
        return merged_weight(bias, self._read(name) * self._scaling(_module(name, B_BIAS), A), None)

    def _product(self, name: str, b: str, a: str) -> Tensor:
        """scaling · B A, in float32 or better."""
        product: Tensor = self._exact(name) @ self._exact(name.removesuffix(b) + a)
        return product * self._scaling(_module(name, b), a)

    def _exact(self, name: str) -> Tensor:
        factor = self._read(name)
        return factor.to(torch.promote_types(factor.dtype, torch.float32))

    def _read(self, name: str) -> Tensor:
        """torch computes with no floats of 8 bits."""
        tensor = recover_tensor(name, self.adapter.tensors.read(name), self.masks)
        return tensor.float() if tensor.itemsize == 1 else tensor

    def _scaling(self, module: str, a: str) -> float:
        """As PEFT has it: alpha / rank, or alpha / √rank, each by module where the config has patterns."""
        config = self.adapter.config
        rank = self.adapter.tensors.shape(f"{PEFT_PREFIX}{module}{a}")[0]
        patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
        own = (alpha for pattern, alpha in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module))
        alpha = float(next(own, alpha_of(config)))
        return alpha / sqrt(rank) if config.get("use_rslora") else alpha / rank

    def _partner(self, name: str, b: str, a: str) -> Shape:
        """Of A, for the base model."""
        partner, tensors = name.removesuffix(b) + a, self.adapter.tensors
        if partner not in tensors.names or tensors.shape(partner)[:1] != tensors.shape(name)[1:]:
            raise RequestFault(f"the adapter has {name} without a {partner} of the same rank.")
        return self._shape(partner)

    def _shape(self, name: str) -> Shape:
        return recovered_shape(name, self.adapter.tensors.shape(name), self.masks)


def rows_with_product(weight: Tensor, b: Tensor, a: Tensor, mask: Tensor | None) -> Rows:
    """`weight` (out, in) plus `b` (out, rank) times `a` (rank, in), both of fp32 or better, where `mask` keeps it;
    rounded once to the weight's dtype."""
    exact = torch.promote_types(weight.dtype, torch.promote_types(b.dtype, a.dtype))
    left, right = b.to(exact), a.to(exact)

    def rows(block: slice) -> Tensor:
        if mask is None:
            return weight[block].to(exact, copy=True).addmm_(left[block], right).to(weight.dtype)
        update = (left[block] @ right).mul_(mask[block].view(torch.uint8))
        return update.add_(weight[block]).to(weight.dtype)

    return rows


def _refuse_activated(config: Config) -> None:
    if config.get("alora_invocation_tokens"):
        raise RequestFault(
            "The adapter was trained with alora_invocation_tokens: it acts behind these tokens alone, which a "
            "merged model does everywhere.",
            way_out="Train a plain LoRA.",
        )


def _module(name: str, part: str) -> str:
    """The module's name in the model, of an adapter's tensor."""
    return name.removeprefix(PEFT_PREFIX).removesuffix(part).replace(".base_layer.", ".")
