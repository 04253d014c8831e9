"""What a family's decoder layers are made of, asked of transformers itself. Imports torch.

Models are built on the meta device (shapes, no memory): the one of the config, and one with a single KV head, neuron
or expert fewer in every layer. What shrinks belongs to the unit, be it a projection, its bias, a norm over all heads
or a router; what vanishes is an expert's. transformers' tensor-parallel plan says which blocks may be cut at all:
rows of `colwise` matrices and columns of the `rowwise` one behind them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

import publisher.loading  # noqa: F401 - teaches transformers layers of different widths
from publisher.architecture.geometry import Geometry
from publisher.architecture.structure import Shape, Unit
from publisher.errors import UnsupportedModel
from publisher.families.layer_kinds import LayerTensors, Shapes, layer_kinds, uncut_units, unit_words
from publisher.families.sizes import Sizes

#: what the plan calls rows or columns that a device can have to itself
_CUTTING = ("colwise", "rowwise", "moe_tp_experts")


def geometry_of(config: Mapping[str, Any]) -> Geometry:
    """The geometry of the causal language model that transformers builds from a raw config.json.

    Raises UnsupportedModel if there is none or its config cannot express narrower layers.
    """
    transformers_logging.set_verbosity_error()
    sizes = Sizes.read(_parsed(config))
    model = _buildable(sizes.config)
    fewer, whole = _one_unit_fewer(sizes)
    files = LayerTensors.of(_file_shapes(model), {unit: _file_shapes(less) for unit, less in fewer.items()})
    modules = LayerTensors.of(_module_shapes(model), {unit: _module_shapes(less) for unit, less in fewer.items()})
    if files.prefix != modules.prefix:
        raise UnsupportedModel(f"family {sizes.family!r} stores its layers as {files.prefix} and has {modules.prefix}.")
    whole |= uncut_units(sizes, files, modules)
    removable = [unit for unit in fewer if unit not in whole]
    kinds, kind_of = layer_kinds(sizes, files.only(removable), modules.only(removable))
    if not any(kind.units for kind in kinds):
        reasons = "; ".join(whole.values()) or "no layer has more than one of anything that could be removed"
        raise UnsupportedModel(
            f"family {sizes.family!r} is not supported: {reasons}.", way_out="See publisher families."
        )
    return Geometry(
        family=sizes.family,
        hidden_size=sizes.config.hidden_size,
        intermediate_size=sizes.neurons,
        layers=len(kind_of),
        query_heads=sizes.query_heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        vocab_size=sizes.config.vocab_size,
        tied_embeddings=bool(getattr(sizes.config, "tie_word_embeddings", False)),
        experts=sizes.experts,
        experts_per_token=sizes.experts_per_token,
        layer_prefix=files.prefix,
        kinds=kinds,
        kind_of=kind_of,
        outside=dict(files.outside),
        fields=sizes.fields,
        whole=whole,
        tied=_tied(model, files.outside),
        ignored=_ignored(model, files.prefix),
    )


def _parsed(raw: Mapping[str, Any]) -> PreTrainedConfig:
    family = str(raw.get("model_type"))
    wanted = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(family)
    if family not in CONFIG_MAPPING_NAMES or wanted is None:
        raise UnsupportedModel(
            f"family {family!r} is not supported: transformers has no causal language model of that name.",
            way_out="See publisher families.",
        )
    named = raw.get("architectures") or [wanted]
    if wanted not in named:
        raise UnsupportedModel(f"config.json names {', '.join(map(str, named))}; only {wanted} can be pruned.")
    try:
        # transformers writes an infinite float as an object, and reads it back before it looks at anything else
        parsed: PreTrainedConfig = CONFIG_MAPPING[family].from_dict(PreTrainedConfig._decode_special_floats(dict(raw)))
    except (ValueError, TypeError, AttributeError, StrictDataclassError) as error:
        raise UnsupportedModel(f"transformers refuses config.json: {_in_one_line(error)}.") from error
    if parsed.get_text_config() is not parsed:
        raise UnsupportedModel(f"family {family!r} is more than a language model.", way_out="See publisher families.")
    if not getattr(parsed, "base_model_tp_plan", None):
        raise UnsupportedModel(
            f"family {family!r} is not supported: transformers does not say which of its matrices are split together.",
            way_out="See publisher families.",
        )
    return parsed


def _buildable(config: PreTrainedConfig) -> PreTrainedModel:
    try:
        return _on_meta(config)
    except Exception as error:  # a family's own code checks its config in its own ways
        raise UnsupportedModel(f"transformers cannot build the model of config.json: {_in_one_line(error)}.") from error


def _on_meta(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def _one_unit_fewer(sizes: Sizes) -> tuple[dict[Unit, PreTrainedModel], dict[Unit, str]]:
    """Models whose every layer has one unit fewer, by the config that a pruned checkpoint would have.

    And why there is none, for units that a config cannot count.
    """
    models, whole = {}, {}
    for unit in Unit:
        overrides = sizes.one_fewer(unit)
        if overrides is None:
            continue
        raw = sizes.config.to_dict() | {"head_dim": sizes.head_dim}
        layers = range(sizes.config.num_hidden_layers)
        try:
            config = type(sizes.config).from_dict(raw | {"per_layer_config": {i: dict(overrides) for i in layers}})
            models[unit] = _on_meta(config)
        except Exception as error:  # noqa: BLE001 - whatever a family's own code makes of it
            whole[unit] = f"its config cannot say that a layer has fewer {unit_words(unit)} ({_in_one_line(error)})"
    return models, whole


def _file_shapes(model: PreTrainedModel) -> dict[str, Shape]:
    """As save_pretrained would name them: experts one by one, tied tensors once."""
    tied = set(getattr(model, "all_tied_weights_keys", {}) or {})
    kept = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    return {name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, kept).items()}


def _tied(model: PreTrainedModel, outside: Shapes) -> dict[str, str]:
    """Of tensors that no layer holds; those two names are the same in files and in modules."""
    pairs = (getattr(model, "all_tied_weights_keys", None) or {}).items()
    return {name: other for name, other in pairs if other in outside}


def _ignored(model: PreTrainedModel, prefix: str) -> tuple[str, ...]:
    """By the model's own word; and the layers for multi-token prediction that its config counts behind the last one.

    Of those transformers knows only the numbers that the published models have (DeepSeek-V3: 61).
    """
    patterns = {*(model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq$"}
    if any(name.endswith("position_ids") for name, _ in model.named_buffers()):
        patterns.add(r"(^|\.)position_ids$")
    layers = model.config.num_hidden_layers
    behind = getattr(model.config, "num_nextn_predict_layers", None)
    if isinstance(behind, int):
        patterns |= {rf"^{re.escape(prefix)}{layer}\." for layer in range(layers, layers + behind)}
    return tuple(sorted(patterns))


def _module_shapes(model: PreTrainedModel) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def main(read: Callable[[], str], write: Callable[[str], object]) -> None:
    """A raw config.json as text in; {"geometry": …} or {"refused", "way_out"} out."""
    try:
        answer: dict[str, Any] = {"geometry": asdict(geometry_of(json.loads(read())))}
    except UnsupportedModel as refusal:
        answer = {"refused": refusal.message, "way_out": refusal.way_out}
    write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.stdin.read, sys.stdout.write)
