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
from publisher.loading.transformers_features import keeps_reads_on_the_cpu

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

    def __init__(self, quantization_config: SparseStorageConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self._devices: dict[str, Any] = {}
        self._plain: list[tuple[WeightTransform, WeightTransform]] = []

    def is_serializable(self) -> bool:
        return True

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
        self, weight_conversions: list[WeightTransform], model: PreTrainedModel | None = None
    ) -> list[WeightTransform]:
        """Every weight is expanded before anything else is done to it: in the family's own conversions, and in one for
        weights that have none. transformers 5.15 to 5.20 give no `model`."""
        self._plain = [(conversion, self._expanding(conversion)) for conversion in weight_conversions]
        updated = [expanding for _, expanding in self._plain]
        return [*updated, self._reading_ahead(WeightConverter([_WEIGHT, _MASK], [_WEIGHT], [Expand(self)]))]

    def _expanding(self, conversion: WeightTransform) -> WeightTransform:
        if not isinstance(conversion, WeightConverter):
            return conversion
        sources, targets = conversion._original_source_patterns, conversion._original_target_patterns
        if not all(source.endswith(f".{_WEIGHT}") for source in sources):
            return self._reading_ahead(conversion)
        both = [pattern for source in sources for pattern in (source, _mask_pattern(source))]
        expanding = WeightConverter(both, [*targets], [Expand(self), *conversion.operations])
        expanding.scope_prefix, expanding.base_model_prefix = conversion.scope_prefix, conversion.base_model_prefix
        return self._reading_ahead(expanding)

    def _reading_ahead(self, conversion: WeightConverter) -> WeightConverter:
        """On the CPU, mapped from disk, where transformers can: then a device only holds what is expanded."""
        if keeps_reads_on_the_cpu(conversion):
            conversion.force_cpu = True
        return conversion

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        """Saving reverts what loading did, but for the expansion."""
        model._weight_conversions = [plain for plain, expanding in self._plain if expanding.was_used()]
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
