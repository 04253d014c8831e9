"""Training a LoRA on a checkpoint that lost single weights: the update is masked as the weights are.

The paper's non-structured LoRAM (arXiv 2502.13533, section 3.1) trains `W0 ∘ M + (B A) ∘ M`: a plain LoRA would bring
pruned weights back in the small model, and what it learned with them would not fit the large one.

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(checkpoint), LoraConfig(…))
    mask_adapter(model, checkpoint)
    …                                   # train with transformers, TRL, or a loop of your own; save as always
    publisher recover ADAPTER --checkpoint … --base … --output …

Cost: (B A) ∘ M is made for one matrix at a time, in the forward and again in the backward pass, so memory grows by
two matrices' size (the update and its gradient) and one bit per weight, not by a model. Multiplying by it costs what
the matrix's own product costs: per adapted matrix one more product forward and two more backward than a plain LoRA.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import LoraVariant, ParamWrapper
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

from publisher.checkpoint.integrity import checked_masks
from publisher.checkpoint.provenance import MARK_FILE
from publisher.checkpoint.tying import refuse_other_masks
from publisher.checkpoint.weight_masks import WeightMasks, unpack
from publisher.errors import RequestFault


def mask_adapter(model: PeftModel, masks: WeightMasks | Path | str, adapter: str = "default") -> int:
    """Keep the update of LoRA `adapter` masked from now on, merging included; returns how many layers are.

    `masks`, or the checkpoint's folder that they lie in. A layer whose weight lost nothing trains as always. The
    masks are no part of what `model.save_pretrained` writes: call this again on an adapter that was loaded. Raises
    RequestFault if no adapted layer has a mask, or one cannot be masked (DoRA and other variants, fused experts), and
    for a folder whose masks are not those of its manifest, or of the checkpoint that the model was loaded from.
    """
    if isinstance(masks, Path | str):
        refuse_other_masks(model, Path(masks))
        masks = checked_masks(Path(masks))
    layers = list(_adapted(model, adapter))
    found = [(name, layer) for name, layer in layers if f"{name}.weight" in masks]
    for name, layer in layers:
        _refuse_unmaskable(name, layer, adapter, masks)
    if not found:
        raise RequestFault(
            f"none of the {len(layers)} layers that adapter {adapter!r} trains has a mask in {masks.path}.",
            way_out="Mask an adapter on the model of this checkpoint; a structured checkpoint needs no masks.",
        )
    for name, layer in found:
        weight = f"{name}.weight"
        layer.lora_variant[adapter] = _Masked(masks.packed(weight), masks.shape(weight)[1])
    _mark(model, adapter)
    return len(found)


def unmask_adapter(model: PeftModel, adapter: str = "default") -> None:
    """Undo `mask_adapter`: the adapter is a plain LoRA again."""
    for _, layer in _adapted(model, adapter):
        if isinstance(layer.lora_variant.get(adapter), _Masked):
            del layer.lora_variant[adapter]
    config = model.peft_config[adapter]
    if isinstance(config, _MaskedConfig):
        config.__class__ = LoraConfig


def masked_product(x: Tensor, a: Tensor, b: Tensor, packed: Tensor) -> Tensor:
    """x ((B A) ∘ M)ᵀ: `x` (…, in), `a` (rank, in), `b` (out, rank), `packed` uint8 (out, ceil(in / 8)) → (…, out)."""
    product: Tensor = _MaskedProduct.apply(x, a, b, packed)  # type: ignore[no-untyped-call]
    return product


class _MaskedConfig(LoraConfig):  # type: ignore[misc]
    """Of a masked adapter. PEFT loads it as any: an adapter that is trained on has to be masked again."""

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        super().save_pretrained(save_directory, **kwargs)
        (Path(save_directory) / MARK_FILE).write_text('{"masked": true}\n', encoding="utf-8")


def _mark(model: PeftModel, adapter: str) -> None:
    """Have PEFT write beside the adapter that its update is masked, for recovery to see."""
    config = model.peft_config[adapter]
    if type(config) is LoraConfig:
        config.__class__ = _MaskedConfig


class _MaskedProduct(torch.autograd.Function):
    """Keeps x, A and B for the backward pass, and makes (B A) ∘ M anew there."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, a: Tensor, b: Tensor, packed: Tensor) -> Tensor:
        ctx.save_for_backward(x, a, b, packed)
        return functional.linear(x, _masked(b @ a, packed))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, packed = ctx.saved_tensors
        wants_x, wants_a, wants_b, _ = ctx.needs_input_grad
        of_x = gradient @ _masked(b @ a, packed) if wants_x else None
        if not (wants_a or wants_b):
            return of_x, None, None, None
        of_update = _masked(gradient.flatten(0, -2).T @ x.flatten(0, -2), packed)  # (out, in)
        return of_x, b.T @ of_update if wants_a else None, of_update @ a.T if wants_b else None, None


class _Masked(LoraVariant):  # type: ignore[misc]
    """How PEFT computes with, and merges, a LoRA whose update is masked."""

    def __init__(self, packed: Tensor, columns: int) -> None:
        self.packed = packed
        self.columns = columns

    def supports_lora_conversion(self) -> bool:
        return False

    def forward(self, module: Any, active_adapter: str, x: Tensor, result: Tensor, **unused: Any) -> Tensor:
        """PEFT's plain forward pass, `result + B A dropout(x) · scaling`, with (B A) ∘ M in place of B A."""
        a, b = module.lora_A[active_adapter].weight, module.lora_B[active_adapter]
        x, a, weight = _in_one_dtype(module.lora_dropout[active_adapter](x), a, b.weight)
        self.packed = self.packed.to(x.device)
        update = masked_product(x, a, weight, self.packed)
        update = update if b.bias is None else update + b.bias
        total: Tensor = result + update * module.scaling[active_adapter]
        return total

    def merge_safe(self, module: Any, active_adapter: str, orig_weight: Tensor) -> Tensor:
        return orig_weight + self._update(module, active_adapter, orig_weight)

    def merge_unsafe(self, module: Any, active_adapter: str, orig_weight: Tensor) -> None:
        orig_weight.data += self._update(module, active_adapter, orig_weight)

    def unmerge(self, module: Any, active_adapter: str, orig_weight: Tensor) -> Tensor:
        return orig_weight - self._update(module, active_adapter, orig_weight)

    def _update(self, module: Any, adapter: str, weight: Tensor) -> Tensor:
        update: Tensor = module.get_delta_weight(adapter)
        return _masked(update, self.packed.to(update.device)).to(weight)


def _masked(matrix: Tensor, packed: Tensor) -> Tensor:
    """`matrix` (out, in), which is overwritten, with zeros where `packed` keeps nothing."""
    return matrix.masked_fill_(unpack(packed, matrix.shape[1]).logical_not_(), 0)


def _in_one_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """As autocast would have matrix products, where it is on."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(tensor.to(dtype) for tensor in tensors)


def _adapted(model: PeftModel, adapter: str) -> Iterator[tuple[str, Any]]:
    """Modules with LoRA `adapter`, by the names that the model itself gives them."""
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer) and adapter in module.lora_A:
            yield name.replace(".base_layer", ""), module


def _refuse_unmaskable(name: str, layer: Any, adapter: str, masks: WeightMasks) -> None:
    weight = f"{name}.weight"
    if isinstance(layer, ParamWrapper) and (layer.parameter_name != "weight" or weight in masks):
        raise RequestFault(
            f"{name}.{layer.parameter_name} is trained as a parameter, whose update cannot be masked.",
            way_out="Train linear layers, through target_modules.",
        )
    if weight not in masks:
        return
    if not isinstance(layer.lora_variant.get(adapter), _Masked | None):
        raise RequestFault(f"{name} is trained with {type(layer.lora_variant[adapter]).__name__}, not a plain LoRA.")
    expected, found = masks.shape(weight), (layer.out_features, layer.in_features)
    if expected != found:
        raise RequestFault(f"{name} has {found} outputs and inputs; its mask in {masks.path} is for {expected}.")
