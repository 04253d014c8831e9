"""What the installed transformers has, and lacks, of what loading a checkpoint needs: the one place that asks.

Loading follows names inside transformers that may go with any release. So it asks for them by name when it is
registered, and never for a version: what is missing is said at the import, with the version that is installed and the
versions that are supported, instead of an AttributeError in the middle of loading.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

#: as pyproject.toml has it, whose two ends `make versions` loads, trains and recovers with
SUPPORTED = "transformers>=5.15,<5.25"
_HETEROGENEITY = "transformers.integrations.heterogeneity"
#: module → what loading takes from it, attributes after a dot
_NEEDED = {
    f"{_HETEROGENEITY}.configuration_utils": ("AmbiguousGlobalPerLayerAttributeError",),
    "transformers.configuration_utils": (
        "PreTrainedConfig.per_layer_config.fset",
        "PreTrainedConfig.is_heterogeneous",
        "PreTrainedConfig._getattr_without_heterogeneous_validation",
        "PreTrainedConfig.from_dict.__func__",
        "PreTrainedConfig.to_json_string",
        "PreTrainedConfig.__class_validators__",
    ),
    "transformers.modeling_utils": (
        "PreTrainedModel.from_pretrained.__func__",
        "PreTrainedModel.save_pretrained",
        "PreTrainedModel.set_attn_implementation",
        "PreTrainedModel._no_split_modules",
    ),
    "transformers.core_model_loading": (
        "ConversionOps",
        "WeightConverter.was_used",
        "WeightConverter._original_source_patterns",
        "WeightConverter._original_target_patterns",
        "WeightConverter.scope_prefix",
        "WeightConverter.base_model_prefix",
    ),
    "transformers.integrations.accelerate": ("get_device",),
    "transformers.quantizers.base": (
        "HfQuantizer._process_model_after_weight_loading",
        "HfQuantizer.update_weight_conversions",
    ),
    "transformers.quantizers.auto": (
        "AUTO_QUANTIZER_MAPPING",
        "register_quantization_config",
        "register_quantizer",
    ),
    "transformers.quantizers.quantizer_bnb_4bit": (
        "Bnb4BitHfQuantizer._process_model_before_weight_loading",
        "Bnb4BitHfQuantizer._process_model_after_weight_loading",
        "Bnb4BitHfQuantizer.param_needs_quantization",
    ),
    "transformers.quantizers.quantizers_utils": ("get_module_from_name",),
    "transformers.utils.quantization_config": ("QuantizationConfigMixin", "QuantizationMethod.BITS_AND_BYTES"),
    "transformers.utils.hub": ("cached_file",),
}


def refuse_unsupported_transformers() -> None:
    """Raises ImportError with the way out if transformers lacks anything that loading takes from it."""
    if find_spec(_HETEROGENEITY) is None:  # older: its modules are not worth the seconds that importing takes
        raise unsupported(f"{_HETEROGENEITY}, by which configs differ per layer")
    for module, names in _NEEDED.items():
        for name in names:
            if lacking := _lacking(module, name):
                raise unsupported(lacking)


def unsupported(lacking: str) -> ImportError:
    return ImportError(
        f"publisher.checkpoint works with {SUPPORTED}; {version('transformers')} is installed, which has no {lacking}. "
        f"Run `pip install '{SUPPORTED}'`."
    )


def builds_its_layers_itself(model: Any, config: Any) -> bool:
    """Whether transformers builds each layer of `model`, which has no config yet, from that layer's own config.

    No release does so far; its pull request 45332 brings `get_heterogeneous_modeling_spec`, which says by model how:
    nothing, or a ValueError, for one that it leaves alone.
    """
    spec_of = getattr(import_module(_HETEROGENEITY), "get_heterogeneous_modeling_spec", None)
    if spec_of is None:
        return False
    model.config = config
    try:
        return spec_of(model) is not None
    except ValueError:
        return False


def keeps_reads_on_the_cpu(conversion: Any) -> bool:
    """Whether a weight's conversion may ask for what it reads to stay on the CPU until it is converted: since 5.18."""
    return hasattr(conversion, "force_cpu")


def _lacking(module: str, name: str) -> str | None:
    """The first part of it that is not there."""
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("transformers"):
            raise
        return module
    there = module
    for part in name.split("."):
        there = f"{there}.{part}"
        if not hasattr(found, part):
            return there
        found = getattr(found, part)
    return None
