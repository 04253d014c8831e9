"""Which engines take a recovered adapter where adapters of many users are served in one batch on one base model, as
FLoRA (arXiv 2312.05677) does: PEFT's mixed batches, vLLM and SGLang. What each refuses, or computes as something else
without a word, was read in the versions that `looked_at` names (docs/serving.md); none of them is asked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publisher.errors import listed

Config = Mapping[str, Any]
#: what vLLM takes as max_lora_rank
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_OF_LORA = (".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B")
#: LoraConfig's fields of other updates than B A x
_VARIANTS = ("use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora")


@dataclass(frozen=True)
class Engine:
    """`refusals`: why it does not take an adapter of this config and these tensors, a clause each; `asks`: what it has
    to be started with."""

    title: str
    looked_at: str
    refusals: Callable[[Config, frozenset[str]], Iterator[str]]
    asks: Callable[[Config], str]


@dataclass(frozen=True)
class Served:
    """What one engine makes of one adapter."""

    engine: str
    refusals: tuple[str, ...]
    asks: str

    @property
    def taken(self) -> bool:
        return not self.refusals

    def __str__(self) -> str:
        if self.taken:
            return f"{self.engine} {self.asks}".rstrip()
        return f"not {self.engine}: {listed(self.refusals)}"


def served(config: Config, names: Iterable[str]) -> tuple[Served, ...]:
    """By every engine, of an adapter_config.json and the names of the adapter's tensors."""
    known = frozenset(names)
    return tuple(Served(each.title, tuple(each.refusals(config, known)), each.asks(config)) for each in ENGINES)


def _of_peft(config: Config, names: frozenset[str]) -> Iterator[str]:
    """Other methods' layers never see adapter_names: they compute with the active adapter, whatever was asked for."""
    if not _is_lora(config):
        yield f"{config.get('peft_type')} has no mixed batches"
    if config.get("use_dora"):
        yield "DoRA has no mixed batches"
    if config.get("bias", "none") != "none":
        yield "the model's own biases are trained, which all adapters share"


def _of_vllm(config: Config, names: frozenset[str]) -> Iterator[str]:
    if not _is_lora(config):
        yield f"{config.get('peft_type')} is no LoRA"
        return
    yield from _variants(config)
    if _rank(config) > VLLM_RANKS[-1]:
        yield f"rank {_rank(config)} is more than {VLLM_RANKS[-1]}"
    yield from _wholes(name for name in names if not name.endswith((".score.weight", ".classifier.weight")))


def _of_sglang(config: Config, names: frozenset[str]) -> Iterator[str]:
    if not _is_lora(config):
        yield f"{config.get('peft_type')} is no LoRA"
        return
    yield from _variants(config)
    if isinstance(config.get("target_modules"), str):
        yield "target_modules is a pattern"
    if config.get("use_rslora"):
        yield "it would be scaled as without use_rslora"
    for field, of_all in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
        if any(value != config.get(of_all) for value in (config.get(field) or {}).values()):
            yield f"it would be scaled as without {field}"
    yield from _wholes(names)


def _variants(config: Config) -> Iterator[str]:
    yield from (f"it has {field}" for field in _VARIANTS if config.get(field))
    if config.get("bias", "none") != "none":
        yield f"bias is {config['bias']}"


def _wholes(names: Iterable[str]) -> Iterator[str]:
    """What is no factor of a LoRA: modules_to_save, biases, trained tokens."""
    if others := sorted(name for name in names if not name.endswith(_OF_LORA)):
        yield f"it holds what is no LoRA's ({others[0]})"


def _is_lora(config: Config) -> bool:
    return str(config.get("peft_type")).removeprefix("PeftType.") == "LORA"


def _rank(config: Config) -> int:
    """The largest of all modules."""
    ranks: Mapping[str, int] = config.get("rank_pattern") or {}
    return max([config.get("r") or 0, *ranks.values()])


def _smallest(config: Config) -> str:
    enough = [rank for rank in VLLM_RANKS if rank >= _rank(config)]
    return f"from max_lora_rank {enough[0]}" if enough else ""


ENGINES = (
    Engine("PEFT", "0.21.2, LoraLayer._mixed_batch_forward", _of_peft, lambda config: ""),
    Engine("vLLM", "0.33.0 (4ba787ec9), vllm/lora/peft_helper.py and utils.py", _of_vllm, _smallest),
    Engine("SGLang", "0.5.23, sglang/srt/lora/lora.py, lora_manager.py and utils.py", _of_sglang, lambda config: ""),
)
