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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from publisher.architecture.structure import LayerKind, Part, Shape, TensorSpec, Unit
from publisher.errors import UnsupportedModel

Shapes = Mapping[str, Shape]

_LAYER = re.compile(r"(.*?\blayers\.)(\d+)\.(.+)")
_EXPERT = re.compile(r"experts\.(\d+)\.")
_EXPERT_FIELDS = ("num_local_experts", "num_experts", "n_routed_experts")
_PER_TOKEN_FIELDS = ("num_experts_per_tok", "moe_topk", "top_k")
#: what the plan calls rows or columns that a device can have to itself
_CUTTING = ("colwise", "rowwise", "moe_tp_experts")


def geometry_of(config: Mapping[str, Any]) -> Geometry:
    """The geometry of the causal language model that transformers builds from a raw config.json.

    Raises UnsupportedModel if there is none or its config cannot express narrower layers.
    """
    transformers_logging.set_verbosity_error()
    sizes = _Sizes.read(_parsed(config))
    model = _buildable(sizes.config)
    fewer, whole = _one_unit_fewer(sizes)
    files = _Names.of(_file_shapes(model), {unit: _file_shapes(less) for unit, less in fewer.items()})
    modules = _Names.of(_module_shapes(model), {unit: _module_shapes(less) for unit, less in fewer.items()})
    if files.prefix != modules.prefix:
        raise UnsupportedModel(f"family {sizes.family!r} stores its layers as {files.prefix} and has {modules.prefix}.")
    whole |= _uncut(sizes, files, modules)
    removable = [unit for unit in fewer if unit not in whole]
    kinds, kind_of = _kinds(sizes, files.only(removable), modules.only(removable))
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


@dataclass(frozen=True)
class _Sizes:
    """A parsed config and the names that its family has for the widths of a layer."""

    config: PreTrainedConfig
    family: str
    query_heads: int
    kv_heads: int
    head_dim: int
    neurons: int
    experts: int
    experts_per_token: int
    fields: Mapping[str, str]

    @classmethod
    def read(cls, config: PreTrainedConfig) -> _Sizes:
        family = str(config.model_type)
        if config.is_heterogeneous:
            raise UnsupportedModel(f"family {family!r} is not supported: its layers differ in width as they are.")
        heads = _count(config, "num_attention_heads")
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        if heads % kv_heads:
            raise UnsupportedModel(
                f"config.json has {heads} query heads and {kv_heads} KV heads, which do not form groups of one size."
            )
        fields = {"query_heads": "num_attention_heads", "neurons": "intermediate_size"}
        if hasattr(config, "num_key_value_heads"):
            fields["kv_heads"] = "num_key_value_heads"
        expert_field = next((name for name in _EXPERT_FIELDS if isinstance(getattr(config, name, None), int)), None)
        if expert_field:
            fields["experts"] = config.attribute_map.get(expert_field, expert_field)
        return cls(
            config=config,
            family=family,
            query_heads=heads,
            kv_heads=kv_heads,
            head_dim=getattr(config, "head_dim", None) or _count(config, "hidden_size") // heads,
            neurons=0 if _is_all_experts(config) else _count(config, "intermediate_size"),
            experts=getattr(config, expert_field) if expert_field else 0,
            experts_per_token=_experts_per_token(config) if expert_field else 0,
            fields=fields,
        )

    @property
    def group_size(self) -> int:
        return self.query_heads // self.kv_heads

    def one_fewer(self, unit: Unit) -> dict[str, int] | None:
        """What the config of a layer says with one `unit` fewer; None if there is none to spare."""
        match unit:
            case Unit.KV_HEADS if self.kv_heads > 1:
                heads = {"num_attention_heads": self.query_heads - self.group_size, "head_dim": self.head_dim}
                return heads | ({self.fields["kv_heads"]: self.kv_heads - 1} if "kv_heads" in self.fields else {})
            case Unit.NEURONS if self.neurons > 1:
                return {self.fields["neurons"]: self.neurons - 1}
            case Unit.EXPERTS if self.experts > max(1, self.experts_per_token) and not _routes_in_groups(self.config):
                return {self.fields["experts"]: self.experts - 1}
        return None


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


def _one_unit_fewer(sizes: _Sizes) -> tuple[dict[Unit, PreTrainedModel], dict[Unit, str]]:
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
            whole[unit] = f"its config cannot say that a layer has fewer {_words(unit)} ({_in_one_line(error)})"
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


@dataclass(frozen=True)
class _Names:
    """Tensors by layer and by name within it: their shapes, and those in models with one unit fewer."""

    prefix: str
    layers: Mapping[int, Shapes]
    outside: Shapes
    fewer: Mapping[Unit, Mapping[int, Shapes]]

    @classmethod
    def of(cls, shapes: Shapes, fewer: Mapping[Unit, Shapes]) -> _Names:
        prefixes = {match[1] for match in map(_LAYER.fullmatch, shapes) if match}
        if len(prefixes) != 1:
            raise UnsupportedModel(f"the model has {len(prefixes)} stacks of layers; one is needed.")
        layers, outside = _by_layer(shapes)
        return cls(prefixes.pop(), layers, outside, {unit: _by_layer(less)[0] for unit, less in fewer.items()})

    def only(self, units: Sequence[Unit]) -> _Names:
        """Without the models that have fewer of other units."""
        return replace(self, fewer={unit: self.fewer[unit] for unit in units})

    def specs(self, sizes: _Sizes, layer: int) -> tuple[dict[str, TensorSpec], set[Unit]]:
        """The layer's tensors, and the units that they have."""
        specs = {name: TensorSpec(shape) for name, shape in self.layers[layer].items()}
        found: set[Unit] = set()
        for unit in self.fewer:
            cut = self._cut_by(sizes, layer, unit)
            if cut:
                found.add(unit)
                specs |= cut
        return specs, found

    def _cut_by(self, sizes: _Sizes, layer: int, unit: Unit) -> dict[str, TensorSpec]:
        full, less = self.layers[layer], self.fewer[unit][layer]
        changed = {name: shape for name, shape in full.items() if less.get(name) != shape}
        if unit is Unit.NEURONS and any("experts" in name for name in changed):
            return {}  # the width of experts, which go as a whole
        return {
            name: _expert_tensor(name, shape)
            if unit is Unit.EXPERTS and (_EXPERT.search(name) or name not in less)
            else _cut_tensor(sizes, unit, name, shape, less.get(name))
            for name, shape in full.items()
            if name in changed or (unit is Unit.EXPERTS and changed and _EXPERT.search(name))
        }


def _by_layer(shapes: Shapes) -> tuple[dict[int, dict[str, Shape]], dict[str, Shape]]:
    layers: dict[int, dict[str, Shape]] = {}
    outside = {}
    for name, shape in shapes.items():
        match = _LAYER.fullmatch(name)
        if match:
            layers.setdefault(int(match[2]), {})[match[3]] = shape
        else:
            outside[name] = shape
    return layers, outside


def _expert_tensor(name: str, shape: Shape) -> TensorSpec:
    match = _EXPERT.search(name)
    if match is None:
        raise _NotCut(f"tensor {name} goes with an expert that its name does not tell")
    return TensorSpec(shape, expert=int(match[1]))


def _cut_tensor(sizes: _Sizes, unit: Unit, name: str, shape: Shape, less: Shape | None) -> TensorSpec:
    axes = [] if less is None or len(less) != len(shape) else [i for i, n in enumerate(shape) if n != less[i]]
    units = {Unit.KV_HEADS: sizes.kv_heads, Unit.NEURONS: sizes.neurons, Unit.EXPERTS: sizes.experts}[unit]
    if less is None or len(axes) != 1 or (shape[axes[0]] - less[axes[0]]) * units != shape[axes[0]]:
        raise _NotCut(
            f"with one of {units} {_words(unit)} fewer, {name} of shape {shape} becomes {less}, which is not one part "
            f"of {units}"
        )
    axis = axes[0]
    return TensorSpec(shape, axis, _parts(sizes, unit, name, shape[axis] // units))


def _parts(sizes: _Sizes, unit: Unit, name: str, span: int) -> tuple[Part, ...]:
    """One part, but for matrices that hold several projections one after another, which no plan tells."""
    module = name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]
    key = sizes.head_dim
    if module == "qkv_proj" and span == (sizes.group_size + 2) * key:
        spans = [sizes.group_size * key, key, key]
    elif module == "gate_up_proj" and unit is Unit.NEURONS and span == 2:
        spans = [1, 1]
    else:
        spans = [span]
    units = {Unit.KV_HEADS: sizes.kv_heads, Unit.NEURONS: sizes.neurons, Unit.EXPERTS: sizes.experts}[unit]
    return tuple(Part(unit, sum(spans[:i]) * units, each) for i, each in enumerate(spans))


def _kinds(sizes: _Sizes, files: _Names, modules: _Names) -> tuple[tuple[LayerKind, ...], tuple[int, ...]]:
    counts = {Unit.KV_HEADS: sizes.kv_heads, Unit.NEURONS: sizes.neurons, Unit.EXPERTS: sizes.experts}
    kinds: list[LayerKind] = []
    kind_of = []
    for layer in range(len(files.layers)):
        tensors, units = files.specs(sizes, layer)
        parameters, _ = modules.specs(sizes, layer)
        _refuse_uncut(tensors, units)
        kind = LayerKind(
            units={unit: counts[unit] for unit in Unit if unit in units},
            tensors=tensors,
            modules={} if parameters == tensors else parameters,
        )
        if kind not in kinds:
            kinds.append(kind)
        kind_of.append(kinds.index(kind))
    return tuple(kinds), tuple(kind_of)


def _uncut(sizes: _Sizes, files: _Names, modules: _Names) -> dict[Unit, str]:
    """Units that no layer can lose, and why: those stay whole, and others may still go."""
    whole = {}
    for unit in files.fewer:
        try:
            _kinds(sizes, files.only([unit]), modules.only([unit]))
        except _NotCut as reason:
            whole[unit] = str(reason)
    return whole


def _refuse_uncut(tensors: Mapping[str, TensorSpec], units: set[Unit]) -> None:
    """A unit has matrices that write it (rows) and one that reads it (columns); experts a router besides their own."""
    for unit in units - {Unit.EXPERTS}:
        cut = [spec for spec in tensors.values() if any(part.unit is unit for part in spec.parts)]
        if {spec.axis for spec in cut if len(spec.shape) == 2} != {0, 1}:
            raise _NotCut(f"its {_words(unit)} are not rows of one matrix and columns of the next")


class _NotCut(Exception):
    """Why a unit cannot be removed from a layer."""


def _words(unit: Unit) -> str:
    return {Unit.KV_HEADS: "attention heads", Unit.NEURONS: "neurons", Unit.EXPERTS: "experts"}[unit]


def _is_all_experts(config: PreTrainedConfig) -> bool:
    """Families without a dense layer have no width of one."""
    experts = any(isinstance(getattr(config, name, None), int) for name in _EXPERT_FIELDS)
    return experts and getattr(config, "intermediate_size", None) is None


def _experts_per_token(config: PreTrainedConfig) -> int:
    return next((n for name in _PER_TOKEN_FIELDS if isinstance(n := getattr(config, name, None), int)), 1)


def _routes_in_groups(config: PreTrainedConfig) -> bool:
    """Routers that choose among groups of experts first need groups of one size."""
    return (getattr(config, "n_group", None) or 1) > 1


def _count(config: PreTrainedConfig, key: str) -> int:
    value = getattr(config, key, None)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnsupportedModel(f"config.json has {key} = {value!r}; a positive whole number is needed.")
    return value


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
