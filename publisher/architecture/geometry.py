"""Shapes and counts of a decoder from its config alone: no weights, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Self

from publisher.errors import RequestFault, UnsupportedModel
from publisher.recipe import Pruning

Shape = tuple[int, ...]

#: model_type → the class that the config must name. One entry per family whose pruning is tested.
FAMILIES: Mapping[str, str] = {"llama": "LlamaForCausalLM"}

ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LayerWidths:
    """What one decoder layer holds: query heads, KV heads (each serves query_heads / kv_heads), neurons."""

    query_heads: int
    kv_heads: int
    neurons: int


@dataclass(frozen=True)
class Geometry:
    """The sizes of a dense decoder with grouped-query attention and a gated MLP."""

    family: str
    hidden_size: int
    intermediate_size: int
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied_embeddings: bool
    attention_bias: bool
    mlp_bias: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read a transformers config.json; raises UnsupportedModel with the key that stands in the way."""
        _refuse_unsupported(config)
        heads = _positive(config, "num_attention_heads")
        hidden = _positive(config, "hidden_size")
        geometry = cls(
            family=str(config["model_type"]),
            hidden_size=hidden,
            intermediate_size=_positive(config, "intermediate_size"),
            layers=_positive(config, "num_hidden_layers"),
            query_heads=heads,
            kv_heads=_positive(config, "num_key_value_heads", heads),
            head_dim=_positive(config, "head_dim", hidden // heads),
            vocab_size=_positive(config, "vocab_size"),
            tied_embeddings=bool(config.get("tie_word_embeddings", False)),
            attention_bias=bool(config.get("attention_bias", False)),
            mlp_bias=bool(config.get("mlp_bias", False)),
        )
        if geometry.query_heads % geometry.kv_heads:
            raise UnsupportedModel(
                f"config.json has {geometry.query_heads} query heads and {geometry.kv_heads} KV heads, "
                "which do not form groups of one size."
            )
        return geometry

    @property
    def group_size(self) -> int:
        """Query heads that share one KV head."""
        return self.query_heads // self.kv_heads

    @property
    def full_width(self) -> LayerWidths:
        return LayerWidths(self.query_heads, self.kv_heads, self.intermediate_size)

    def tensor_shapes(self, widths: Sequence[LayerWidths] | None = None) -> dict[str, Shape]:
        """Every weight's name and shape, as in the safetensors files; `widths` has one entry per layer."""
        widths = widths or [self.full_width] * self.layers
        shapes: dict[str, Shape] = {"model.embed_tokens.weight": (self.vocab_size, self.hidden_size)}
        for index, width in enumerate(widths):
            for name, shape in self._layer_shapes(width).items():
                shapes[f"model.layers.{index}.{name}"] = shape
        shapes["model.norm.weight"] = (self.hidden_size,)
        if not self.tied_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, self.hidden_size)
        return shapes

    def _layer_shapes(self, width: LayerWidths) -> dict[str, Shape]:
        query, key = width.query_heads * self.head_dim, width.kv_heads * self.head_dim
        shapes: dict[str, Shape] = {
            "self_attn.q_proj.weight": (query, self.hidden_size),
            "self_attn.k_proj.weight": (key, self.hidden_size),
            "self_attn.v_proj.weight": (key, self.hidden_size),
            "self_attn.o_proj.weight": (self.hidden_size, query),
            "mlp.gate_proj.weight": (width.neurons, self.hidden_size),
            "mlp.up_proj.weight": (width.neurons, self.hidden_size),
            "mlp.down_proj.weight": (self.hidden_size, width.neurons),
            "input_layernorm.weight": (self.hidden_size,),
            "post_attention_layernorm.weight": (self.hidden_size,),
        }
        biased = [f"self_attn.{name}" for name in ATTENTION_PROJECTIONS] if self.attention_bias else []
        biased += [f"mlp.{name}" for name in MLP_PROJECTIONS] if self.mlp_bias else []
        return shapes | {f"{name}.bias": shapes[f"{name}.weight"][:1] for name in biased}

    def parameters(self, widths: Sequence[LayerWidths] | None = None) -> int:
        """Parameters in total; tied embeddings count once."""
        return sum(prod(shape) for shape in self.tensor_shapes(widths).values())


def pruned_widths(geometry: Geometry, pruning: Pruning) -> tuple[LayerWidths, ...]:
    """Widths of every layer after structured pruning, by the rule of the paper's tables (DESIGN section 2).

    Keeps `int(intermediate_size * (1 - ratio))` neurons and removes `(C - int(C * (1 - ratio))) // head_dim`
    KV heads, `C = kv_heads * head_dim`, in each layer that is not protected. Raises RequestFault if nothing
    would be left of a layer or nothing is left to prune.
    """
    _refuse_protection(geometry, pruning)
    channels = geometry.kv_heads * geometry.head_dim
    removed = (channels - int(channels * (1 - pruning.ratio))) // geometry.head_dim
    kv_heads = geometry.kv_heads - removed
    neurons = int(geometry.intermediate_size * (1 - pruning.ratio))
    if kv_heads < 1 or neurons < 1:
        left = "attention head" if kv_heads < 1 else "neuron"
        raise RequestFault(
            f"ratio {pruning.ratio} leaves no {left} in a layer of {geometry.kv_heads} KV heads and "
            f"{geometry.intermediate_size} neurons.",
            field="recipe.pruning.ratio",
            way_out="Choose a smaller ratio.",
        )
    pruned = LayerWidths(kv_heads * geometry.group_size, kv_heads, neurons)
    last = geometry.layers - pruning.protect_last
    return tuple(
        pruned if pruning.protect_first <= index < last else geometry.full_width for index in range(geometry.layers)
    )


def _refuse_protection(geometry: Geometry, pruning: Pruning) -> None:
    protected = pruning.protect_first + pruning.protect_last
    if protected >= geometry.layers:
        raise RequestFault(
            f"protect_first {pruning.protect_first} + protect_last {pruning.protect_last} leave none of the "
            f"{geometry.layers} decoder layers to prune.",
            field="recipe.pruning.protect_first",
            way_out=f"Protect at most {geometry.layers - 1} layers in total.",
        )


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    family = str(config.get("model_type"))
    if config.get("auto_map"):
        raise UnsupportedModel(
            "config.json asks for remote code (auto_map), which is never run here.",
            way_out="Use a model that transformers implements itself.",
        )
    if family not in FAMILIES:
        raise UnsupportedModel(
            f"family {family!r} is not supported.", way_out=f"Supported: {', '.join(sorted(FAMILIES))}."
        )
    architectures = config.get("architectures") or [FAMILIES[family]]
    if FAMILIES[family] not in architectures:
        raise UnsupportedModel(
            f"config.json names {', '.join(map(str, architectures))}; only {FAMILIES[family]} can be pruned."
        )
    for key in ("quantization_config", "per_layer_config"):
        if config.get(key):
            raise UnsupportedModel(
                f"config.json has {key}: the model is already quantized or pruned.",
                way_out="Register the original, full-precision model.",
            )


def _positive(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnsupportedModel(f"config.json has {key} = {value!r}; a positive whole number is needed.")
    return value
