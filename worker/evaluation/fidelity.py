"""Gradient fidelity: does training a LoRA on the pruned model start in the direction it would take on the base model?

A LoRA adds B A to a weight, B zero at the start, so its first step follows the gradient of the loss by B alone:
`G Aᵀ`, (out, rank), where G (out, in) is the gradient by the weight. Both models get the same adapter: a random A on
the inputs that were kept, and on the base model the same A recovered, with zeros at the others. The gradients by B are
compared at the outputs that were kept, by their cosine: 1 for a model that lost nothing that mattered, 0 for a
gradient that has nothing to do with the base model's.

Of a checkpoint that lost single weights the update is (B A) ∘ M on both models, as its LoRAs are trained
(publisher.checkpoint.masked), so the gradients are `(G ∘ M) Aᵀ`: compared at the kept weights there too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from publisher.checkpoint.masked import mask_adapter
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.methods.lora_placement import cut_tensor, recover_tensor
from publisher.manifest.evaluation import GradientFidelity
from worker.models.head import head_of
from worker.probe.probe import with_lora
from worker.quantization.nf4 import load_published
from worker.training.batch_loss import NextToken, accumulate_gradients

_A, _B = ".lora_A.weight", ".lora_B.weight"


def gradient_fidelity(
    base: Path,
    published: Path,
    masks: PruningMasks,
    sequences: Tensor,
    *,
    rank: int = 8,
    seed: int = 0,
    device: torch.device | str = "cpu",
    check: Callable[[], None] = lambda: None,
) -> GradientFidelity:
    """Of the model in folder `published` to the one in `base`, by the next-token loss over `sequences` (n, length).

    `masks`: what was removed from the one to make the other. One model in memory at a time. `check` is called before
    each part of `sequences` and may raise.
    """
    on_base = with_lora(load_published(base, device), rank)
    adapters = _kept(random_adapters(on_base, seed), masks)
    wanted = lora_gradients(on_base, sequences, adapters, masks, check)
    del on_base
    wanted = _kept(wanted, masks)
    on_published = with_lora(load_published(published, device), rank)
    return compare_gradients(lora_gradients(on_published, sequences, adapters, masks, check), wanted)


def random_adapters(adapter: PeftModel, seed: int) -> dict[str, Tensor]:
    """An A for every layer of `adapter`: float32 (rank, in), by the name that PEFT saves it under."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: layer.lora_A["default"].weight.shape for name, layer in sorted(_adapted(adapter).items())}
    return {name: torch.randn(shape, generator=generator) / shape[1] ** 0.5 for name, shape in shapes.items()}


def lora_gradients(
    adapter: PeftModel,
    sequences: Tensor,
    adapters: Mapping[str, Tensor],
    masks: PruningMasks | None = None,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """Gradient by B, where B = 0, of a fresh LoRA (`with_lora`) that gets the A in `adapters`.

    Of the mean next-token loss over `sequences` (n, length): float32 (out, rank) on the CPU, by B's saved name. With
    masks of weights the update is masked; with masks of units an A of the checkpoint is recovered where it has to be.
    """
    if masks is not None and masks.update_masks is not None:
        mask_adapter(adapter, masks.update_masks)
    model, layers = adapter.get_base_model(), _adapted(adapter)
    for name, layer in layers.items():
        weight, a = layer.lora_A["default"].weight, adapters[name]
        weight.data.copy_(a if masks is None or a.shape == weight.shape else recover_tensor(name, a, masks))
    accumulate_gradients(model, NextToken(head_of(model)), sequences.to(model.device), check)
    return {
        name.removesuffix(_A) + _B: layer.lora_B["default"].weight.grad.float().cpu() for name, layer in layers.items()
    }


def _kept(tensors: Mapping[str, Tensor], masks: PruningMasks) -> dict[str, Tensor]:
    return {name: cut_tensor(name, tensor, masks) for name, tensor in tensors.items()}


def compare_gradients(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> GradientFidelity:
    """Cosines between gradients of one name and shape: of each, and of all as one vector."""
    cosines = {name: _cosine(gradient, wanted[name]) for name, gradient in found.items()}
    whole = [torch.cat([gradients[name].flatten() for name in found]) for gradients in (found, wanted)]
    by_layer: dict[int, list[float]] = defaultdict(list)
    for name, cosine in cosines.items():
        by_layer[_layer(name)].append(cosine)
    return GradientFidelity(
        mean=fmean(cosines.values()),
        whole=_cosine(*whole),
        layers=[fmean(by_layer[layer]) if layer in by_layer else None for layer in range(max(by_layer) + 1)],
    )


def _cosine(left: Tensor, right: Tensor) -> float:
    """0 where either is 0 throughout."""
    left, right = left.flatten().double(), right.flatten().double()
    lengths = float(left.norm() * right.norm())
    return float(left @ right) / lengths if lengths else 0.0


def _adapted(adapter: PeftModel) -> dict[str, Any]:
    """Layers with a LoRA by the name that PEFT saves their A under."""
    return {f"{name}{_A}": layer for name, layer in adapter.named_modules() if isinstance(layer, LoraLayer)}


def _layer(name: str) -> int:
    """The first number in a module's name is that of the decoder's layer."""
    found = re.search(r"\.(\d+)\.", name)
    assert found, f"{name} is in no layer"
    return int(found[1])
