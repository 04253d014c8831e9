"""Compressed storage (compression.py) in transformers: expanded while it is loaded, an ordinary dense model after.

transformers has one way in for weights that are stored otherwise than the model computes with them: a quantizer,
named by `quantization_config` in config.json, whose load operation runs on each weight, also before those that merge
experts. This one removes itself afterwards, so that training, saving and adapters see a plain model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps, WeightConverter, WeightTransform
from transformers.integrations.accelerate import get_device
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import (
    AUTO_QUANTIZER_MAPPING,
    register_quantization_config,
    register_quantizer,
)
from transformers.utils.quantization_config import QuantizationConfigMixin

from publisher.checkpoint.compression import METHOD, expand
from publisher.checkpoint.weight_masks import unpack

_WEIGHT, _MASK = "weight", "kept_weights"


def register() -> None:
    """Make transformers load compressed checkpoints. Idempotent."""
    if METHOD not in AUTO_QUANTIZER_MAPPING:
        register_quantization_config(METHOD)(SparseStorageConfig)
        register_quantizer(METHOD)(SparseStorageQuantizer)


class SparseStorageConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """`quantization_config` of a compressed checkpoint; it has no settings."""

    def __init__(self, **settings: Any) -> None:
        self.quant_method = METHOD
        self.dequantize = True


class Expand(ConversionOps):  # type: ignore[misc]
    """Kept entries and their mask → the dense weight, in the dtype and on the device that the model wants."""

    def __init__(self, quantizer: SparseStorageQuantizer) -> None:
        self.quantizer = quantizer

    @torch.no_grad()
    def convert(
        self, input_dict: dict[str, list[Tensor]], model: PreTrainedModel, full_layer_name: str, **unused: Any
    ) -> dict[str, list[Tensor]]:
        """Tensors by source pattern, several where the pattern matches many; the masks are used up."""
        module, _, parameter = full_layer_name.rpartition(".")
        target: Tensor = getattr(model.get_submodule(module), parameter)
        device = self.quantizer.device_of(full_layer_name)
        dense = {}
        for pattern in [pattern for pattern in input_dict if not pattern.endswith(_MASK)]:
            weights = input_dict[pattern]
            masks: list[Tensor | None] = [*input_dict.get(_mask_pattern(pattern), [])] or [None] * len(weights)
            if len(masks) != len(weights):
                raise ValueError(f"{len(weights)} weights and {len(masks)} masks for {full_layer_name}")
            pairs = zip(weights, masks, strict=True)
            dense[pattern] = [_expanded(weight, mask, target, device) for weight, mask in pairs]
        return dense

    @property
    def reverse_op(self) -> ConversionOps:
        raise NotImplementedError("a loaded model is dense and saved as it is")


class SparseStorageQuantizer(HfQuantizer):  # type: ignore[misc]
    requires_calibration = True
    is_trainable = True
    serialized_names = {_WEIGHT: [_WEIGHT, _MASK]}

    def __init__(self, quantization_config: SparseStorageConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self._devices: dict[str, Any] = {}
        self._plain: dict[int, WeightTransform] = {}

    def is_serializable(self) -> bool:
        return True

    def get_load_operations(self) -> dict[str, type[ConversionOps]]:
        return {"dequantize": Expand}

    def get_new_dtype(self, converter: WeightTransform, param: Any, dtype: torch.dtype | None) -> torch.dtype | None:
        """Expand casts: a weight that is cast when it is read, ahead of its turn, takes memory until then."""
        operations = getattr(converter, "operations", ())
        return None if any(isinstance(operation, Expand) for operation in operations) else dtype

    def update_device_map(self, device_map: Any) -> Any:
        self._devices = device_map if isinstance(device_map, dict) else {}
        return device_map

    def device_of(self, name: str) -> Any:
        """Where to expand a weight: where it will be, or on the CPU as long as that is not settled."""
        device = get_device(self._devices, name, valid_torch_device=True) if self._devices else "cpu"
        return "cpu" if device in ("disk", "meta") else device

    def update_weight_conversions(
        self, weight_conversions: list[WeightTransform], model: PreTrainedModel
    ) -> list[WeightTransform]:
        """Reads ahead stay on the CPU, mapped from disk: a device only holds what is expanded."""
        plain = list(weight_conversions)
        updated: list[WeightTransform] = super().update_weight_conversions(weight_conversions, model)
        self._plain = {id(new): old for new, old in zip(updated, plain, strict=False)}
        for conversion in updated:
            if isinstance(conversion, WeightConverter):
                conversion.force_cpu = True
        return updated

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        """Saving reverts what loading did, but for the expansion."""
        used = getattr(model, "_weight_conversions", None) or []
        model._weight_conversions = [
            self._plain[id(conversion)] for conversion in used if id(conversion) in self._plain
        ]
        return model


def _mask_pattern(pattern: str) -> str:
    return pattern.removesuffix(_WEIGHT) + _MASK


def _expanded(weight: Tensor, mask: Tensor | None, target: Tensor, device: Any) -> Tensor:
    weight = weight.to(device)
    if mask is None:
        if weight.ndim < min(target.ndim, 2):
            raise ValueError("a compressed weight came without its mask")
        return weight.to(target.dtype)
    packed = mask.to(device)
    return expand(weight, unpack(packed, _columns(packed, target))).to(target.dtype)


def _columns(packed: Tensor, target: Tensor) -> int:
    """The weight's input features: those of what it becomes, which may be a stack of weights, if they fit."""
    columns = target.shape[-1]
    return columns if -(-columns // 8) == packed.shape[1] else 8 * packed.shape[1]
