"""Layers of different widths in transformers: each decoder layer is built from its own config.

transformers lets a config say what differs per layer (`per_layer_config`, since 5.14), but the modelling code of most
families builds every layer from the global config, on which such an attribute raises. `register` closes that gap
for every family at once, for models whose config says that layers differ (but for those that transformers itself says
it builds so, which are left to it):

- a decoder layer class (named by the model's `_no_split_modules`) gets `config.per_layer_config[layer_idx]`
  in place of the global config when it is constructed;
- a model may read how many experts and query heads its config names for all layers, which are the base model's: for a
  loss that balances experts, and for rotary embeddings (YaRN, LongRoPE); each layer builds its own;
- a config's own checks see the base model's widths, not the layers': they read them from the global config, and have
  rules such as head counts that divide `hidden_size`, while a pruned LLaMA-2-13B keeps 14 heads of 128 in 5120;
- what config.json says to whoever lacks this package (notice.py) is left out when it is read, and is there again when
  a config is saved that needs it.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.integrations.heterogeneity.configuration_utils import AmbiguousGlobalPerLayerAttributeError

from publisher.loading import four_bit
from publisher.loading.four_bit_everywhere import METHOD as EVERYWHERE
from publisher.loading.notice import with_notice, without_notice
from publisher.loading.transformers_features import builds_its_layers_itself

_MARK = "_builds_from_layer_config"
#: where transformers keeps what differs per layer
_LAYERS = "_heterogeneity_spec"
#: what families call the number of experts of a layer, and of its query heads
_OUTSIDE_OF_LAYERS = ("num_experts", "num_local_experts", "n_routed_experts", "num_attention_heads")


def register() -> None:
    """Make transformers build layers from their own config. Idempotent."""
    if getattr(PreTrainedModel.__init__, _MARK, False):
        return
    four_bit.hide_advice()
    PreTrainedModel.__init__ = _before_layers_are_built(PreTrainedModel.__init__)
    PreTrainedModel.set_attn_implementation = _reaching_layer_configs(PreTrainedModel.set_attn_implementation)
    _validate_what_all_layers_share()
    PreTrainedConfig.__getattribute__ = _answering_outside_of_layers(PreTrainedConfig.__getattribute__)
    PreTrainedConfig.from_dict = classmethod(_leaving_out_the_notice(PreTrainedConfig.from_dict.__func__))
    PreTrainedConfig.to_json_string = _with_the_notice(PreTrainedConfig.to_json_string)


def _leaving_out_the_notice(original: Callable[..., Any]) -> Callable[..., Any]:
    """Where every config that was a file passes."""

    @functools.wraps(original)
    def from_dict(cls: type[PreTrainedConfig], config_dict: dict[str, Any], **kwargs: Any) -> Any:
        return original(cls, without_notice(config_dict), **kwargs)

    return from_dict


def _with_the_notice(original: Callable[..., str]) -> Callable[..., str]:
    """What is saved of a loaded checkpoint needs this package as well."""

    @functools.wraps(original)
    def to_json_string(self: PreTrainedConfig, *args: Any, **kwargs: Any) -> str:
        text = original(self, *args, **kwargs)
        config = json.loads(text)
        told = with_notice(config)
        return text if told == config else json.dumps(told, indent=2, sort_keys=True) + "\n"

    return to_json_string


def _answering_outside_of_layers(original: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    @functools.wraps(original)
    def getattribute(self: PreTrainedConfig, key: str) -> Any:
        try:
            return original(self, key)
        except AmbiguousGlobalPerLayerAttributeError:
            if key not in _OUTSIDE_OF_LAYERS:
                raise
            return self._getattr_without_heterogeneous_validation(key)

    return getattribute


def _before_layers_are_built(original: Callable[..., None]) -> Callable[..., None]:
    """PreTrainedModel.__init__ runs before a model makes its layers: the moment to prepare their class."""

    @functools.wraps(original)
    def init(self: PreTrainedModel, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        if config.is_heterogeneous and not builds_its_layers_itself(self, config):
            for layer_class in _decoder_layer_classes(type(self)):
                _build_from_layer_config(layer_class)
        if _is_four_bit(config):
            four_bit.prepare()
        original(self, config, *args, **kwargs)

    setattr(init, _MARK, True)
    return init


def _is_four_bit(config: PreTrainedConfig) -> bool:
    """Whether bitsandbytes will make the layers; the quantization is a dict or an object, as it came."""
    quantization = getattr(config, "quantization_config", None) or {}
    values = quantization if isinstance(quantization, dict) else quantization.to_dict()
    return bool(values.get("load_in_4bit", False)) or values.get("quant_method") == EVERYWHERE


def _decoder_layer_classes(model_class: type[PreTrainedModel]) -> list[type[nn.Module]]:
    names = set(model_class._no_split_modules or ())
    module = sys.modules[model_class.__module__]
    found = [getattr(module, name) for name in sorted(names) if hasattr(module, name)]
    return [cls for cls in found if {"config", "layer_idx"} <= inspect.signature(cls.__init__).parameters.keys()]


def _build_from_layer_config(layer_class: type[nn.Module]) -> None:
    original = layer_class.__init__
    if getattr(original, _MARK, False):
        return
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        config = bound.arguments["config"]
        if config.is_heterogeneous:
            bound.arguments["config"] = config.per_layer_config[bound.arguments["layer_idx"]]
        original(*bound.args, **bound.kwargs)

    setattr(init, _MARK, True)
    layer_class.__init__ = init  # type: ignore[method-assign]


def _reaching_layer_configs(original: Callable[..., None]) -> Callable[..., None]:
    """Layer configs are copies: a later change of the attention implementation has to reach them too."""

    @functools.wraps(original)
    def set_attn_implementation(self: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if not self.config.is_heterogeneous:
            return
        for module in self.modules():
            config = getattr(module, "config", None)
            if isinstance(config, type(self.config)) and config is not self.config:
                config._attn_implementation = self.config._attn_implementation

    return set_attn_implementation


def _validate_what_all_layers_share() -> None:
    """Wrap the validators of each config class that becomes heterogeneous."""
    original = PreTrainedConfig.per_layer_config
    assert isinstance(original, property)
    assert original.fset is not None
    assign = original.fset

    def set_per_layer_config(self: PreTrainedConfig, overrides: dict[int | str, dict[str, Any]] | None) -> None:
        validators = type(self).__class_validators__
        for position, validator in enumerate(validators):
            if not hasattr(validator, _MARK):
                validators[position] = _of_the_base_model(validator)
        assign(self, overrides)

    PreTrainedConfig.per_layer_config = property(original.fget, set_per_layer_config)


def _of_the_base_model(validator: Callable[[PreTrainedConfig], None]) -> Callable[[PreTrainedConfig], None]:
    """Without the layers' own values a pruned config is the base model's, which is what families' rules are for."""

    @functools.wraps(validator)
    def validate(config: PreTrainedConfig) -> None:
        layers = config.__dict__.pop(_LAYERS, None)
        try:
            validator(config)
        finally:
            if layers is not None:
                config.__dict__[_LAYERS] = layers

    setattr(validate, _MARK, True)
    return validate
