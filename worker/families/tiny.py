"""A tiny model with random weights of any decoder family, from what its config class says of itself."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

LAYERS, MOST_LAYERS = 4, 12
EXPERTS, EXPERTS_PER_TOKEN = 6, 2

#: Sizes by the names that configs have for them; a family takes those that it knows.
_SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "sliding_window": 6,
    "moe_intermediate_size": 12,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # routers that choose among groups of experts need more experts than these models have
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 2,
    "n_shared_experts": 1,
}
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "moe_num_primary_experts")
_EXPERTS_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts", "moe_top_k")
#: No family needs more in one dimension that is not listed; what is larger by default becomes this.
_LARGEST, _SMALL = 32, 16


def causal_families() -> list[str]:
    """Every family of which transformers has a causal language model."""
    return sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) & set(CONFIG_MAPPING_NAMES))


def config_class(family: str) -> type[PreTrainedConfig]:
    found: type[PreTrainedConfig] = CONFIG_MAPPING[family]
    return found


_OPTIONS = re.compile(r"bias|qk_norm|qk_layernorm")

#: Tried in turn until a family's model runs: some derive the size of a head from others, or shapes of side branches.
_CHANGES: tuple[Mapping[str, int], ...] = (
    {},
    {"head_dim": _SIZES["hidden_size"] // _SIZES["num_attention_heads"]},
    {"index_head_dim": 2 * _SMALL},
    {"head_dim": 2 * _SMALL},
)


def options_of(family: str) -> dict[str, bool]:
    """The family's switches for biases and for norms of queries and keys, all on."""
    defaults = _fields(config_class(family))
    return {name: True for name, default in defaults.items() if default is False and _OPTIONS.search(name)}


def tiny_base(family: str, options: Mapping[str, bool]) -> PreTrainedModel:
    """A tiny model of the family that runs; raises whatever the family's own code does if none is found."""
    failures = []
    for change in _CHANGES:
        try:
            model = tiny_model(tiny_config(family, {**change, **options}))
            with torch.no_grad():
                model(tiny_tokens(model.config), use_cache=False)
        except Exception as error:  # noqa: BLE001 - other people's code, in ways that nobody can list
            failures.append(error)
            continue
        return model
    raise failures[0]


def tiny_config(family: str, change: Mapping[str, int]) -> PreTrainedConfig:
    """At least `LAYERS`, and so many that between the first and the last is every type that the default config has."""
    cls = config_class(family)
    sizes = _sizes(cls) | _named(cls, change)
    wanted = set(_layer_types(cls()))
    for layers in range(LAYERS, MOST_LAYERS + 1):
        config = cls(**sizes, **_named(cls, {"num_hidden_layers": layers}))
        if set(_layer_types(config)[1:-1]) == wanted:
            return config
    return cls(**sizes, **_named(cls, {"num_hidden_layers": LAYERS}))


def tiny_model(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """The causal language model of `config` in float32; every weight random, those of norms around 1."""
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(_weights(model)):
        noise = torch.randn(weight.shape, generator=generator) * 0.2
        weight.data.copy_(noise + 1 if name.endswith("norm.weight") else noise)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            module.weight.data[module.padding_idx] = 0  # some families see to it whenever a model is loaded
    return model.eval()


def tiny_tokens(config: PreTrainedConfig, rows: int = 2, length: int = 12) -> Tensor:
    """(rows, length) of text tokens: no special ones."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(8, config.vocab_size, (rows, length), generator=generator)


def _weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and the buffers that files hold (biases of routers); tied tensors under one name."""
    yield from model.named_parameters()
    stored = model.state_dict().keys()
    yield from (
        (name, buffer) for name, buffer in model.named_buffers() if name in stored and buffer.is_floating_point()
    )


def _sizes(cls: type[PreTrainedConfig]) -> dict[str, object]:
    counts = dict.fromkeys(_EXPERT_COUNTS, EXPERTS) | dict.fromkeys(_EXPERTS_PER_TOKEN, EXPERTS_PER_TOKEN)
    sizes = _named(cls, _SIZES | counts)
    if "kv_lora_rank" in _fields(cls):  # multi-head latent attention: every query head has keys of its own
        sizes |= _named(cls, {"num_key_value_heads": _SIZES["num_attention_heads"]})
    return _shrunk(cls) | sizes


def _named(cls: type[PreTrainedConfig], values: Mapping[str, int]) -> dict[str, object]:
    """Those of `values` that the class knows, by the class's own names for them."""
    known = _fields(cls)
    names = {key: key if key in known else cls.attribute_map.get(key, key) for key in values}
    return {names[key]: value for key, value in values.items() if names[key] in known}


def _shrunk(cls: type[PreTrainedConfig]) -> dict[str, object]:
    """Whole numbers that are large by default and not sizes of the list above: ranks, widths of side branches."""
    return {
        name: _SIZES["vocab_size"] if "vocab" in name else _SMALL
        for name, default in _fields(cls).items()
        if isinstance(default, int) and default > _LARGEST and not name.endswith(("_id", "_ids", "num_hidden_layers"))
    }


def _fields(cls: type[PreTrainedConfig]) -> dict[str, object]:
    """Name → default."""
    return {field.name: field.default for field in dataclasses.fields(cls)}


def _layer_types(config: PreTrainedConfig) -> list[str]:
    return [str(kind) for kind in getattr(config, "layer_types", None) or ()]
