"""How wide a config says that a model's layers are, and what its family calls that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedConfig

from publisher.architecture.structure import Unit
from publisher.errors import UnsupportedModel

_EXPERT_FIELDS = ("num_local_experts", "num_experts", "n_routed_experts")
_PER_TOKEN_FIELDS = ("num_experts_per_tok", "moe_topk", "top_k")


@dataclass(frozen=True)
class Sizes:
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
    def read(cls, config: PreTrainedConfig) -> Sizes:
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
    def units(self) -> Mapping[Unit, int]:
        """How many of each a layer has."""
        return {Unit.KV_HEADS: self.kv_heads, Unit.NEURONS: self.neurons, Unit.EXPERTS: self.experts}

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
