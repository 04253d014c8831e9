"""Bone, which older PEFT had: what is MiSS today, under other names (arXiv 2409.15371). Its files are read as that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.as_changes import as_changes
from publisher.checkpoint.recovery.as_lora import as_lora
from publisher.checkpoint.recovery.changes import Together
from publisher.checkpoint.recovery.method import AdapterMethod, Change, Config, Update
from publisher.checkpoint.recovery.methods.matrix_method import of_matrices
from publisher.checkpoint.recovery.naming import Naming

_BONE, _MISS = ".bone_", ".miss_"


def _as_miss(adapter: Adapter) -> Adapter:
    tensors = adapter.tensors
    names = {name.replace(_BONE, _MISS): saved for name, saved in tensors.names.items()}
    renamed = replace(tensors, names=names, naming=Naming((_MISS,)))
    return replace(adapter, tensors=renamed, config={**adapter.config, "peft_type": "MISS"})


def _lora(adapter: Adapter, masks: PruningMasks) -> Update:
    return as_lora(_as_miss(adapter), masks, Together.ALONE)


def _changes(adapter: Adapter, masks: PruningMasks) -> Iterator[Change]:
    return as_changes(_as_miss(adapter), masks, Together.ALONE)


def multiplies(config: Config) -> bool:
    return config.get("init_weights") == "bat"


def _bone(**said: Any) -> AdapterMethod:
    method = of_matrices("BONE", "Bone", _BONE, why="its block is repeated over neighbouring columns", **said)
    return replace(method, recover=_lora, truncate=_lora, merge=_changes)


BONE = (
    _bone(
        covers=multiplies, variant="init_weights=bat", on_weights="its block multiplies the weight and is added to it"
    ),
    _bone(),
)
