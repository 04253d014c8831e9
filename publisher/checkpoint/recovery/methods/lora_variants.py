"""LoRA's variants whose update is not B A alone: by their realised change on the checkpoint's weights."""

from __future__ import annotations

from functools import partial

from publisher.checkpoint.recovery.method import AdapterMethod, Config
from publisher.checkpoint.recovery.methods.lora import refuse_malformed
from publisher.checkpoint.recovery.methods.matrix_method import of_matrices

_BY_THE_WEIGHTS = ("pissa", "olora")


def _has(option: str, config: Config) -> bool:
    return bool(config.get(option))


def _starts_on_the_weights(config: Config) -> bool:
    return str(config.get("init_lora_weights")).lower() in _BY_THE_WEIGHTS


def _variant(option: str, title: str, why: str, on_weights: str = "") -> AdapterMethod:
    return of_matrices(
        "LORA", title, ".lora_", why=why, on_weights=on_weights, refuse=refuse_malformed, covers=partial(_has, option),
        variant=option,
    )  # fmt: skip


LORA_VARIANTS: tuple[AdapterMethod, ...] = (
    _variant(
        "use_dora", "DoRA",
        "every row is scaled by a trained magnitude over the row's norm, and pruned rows and columns change the norm",
        "it scales the weight's own rows",
    ),
    _variant(
        "kasa_config", "KaSA", "it takes the smallest singular values out of the checkpoint's weight",
        "it replaces singular values of the weight",
    ),
    _variant("use_bdlora", "BD-LoRA", "its blocks are of neighbouring rows or columns"),
    _variant("velora_config", "VeLoRA", "directions of its inputs stand beside A and B, for training alone"),
    _variant("monteclora_config", "MonteCLoRA", "what is added to A is drawn from parameters beside it"),
    of_matrices(
        "LORA", "PiSSA or OLoRA", ".lora_", why="it starts by taking B A out of the checkpoint's weights",
        on_weights="it starts from the weight's own singular vectors, which saving can convert away",
        refuse=refuse_malformed, covers=_starts_on_the_weights, variant="init_lora_weights=pissa, olora",
    ),
)  # fmt: skip
