"""Opening an adapter's folder: its method, its config with the strength in it, its tensors and their places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from publisher.checkpoint.provenance import refuse_recovered
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.folder import read_config, weights_file
from publisher.checkpoint.recovery.method import AdapterMethod, refuse_strength
from publisher.checkpoint.recovery.methods import method_of
from publisher.checkpoint.recovery.places import AdapterPlaces, places, places_of_modules
from publisher.checkpoint.recovery.report import TrainedOn
from publisher.checkpoint.recovery.tensors import AdapterTensors, opened_adapter
from publisher.checkpoint.recovery.whole_parameters import WholeParameters


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter's folder, its method, and adapter_config.json with the strength in it."""

    folder: Path
    method: AdapterMethod
    config: dict[str, Any]
    strength: float

    @classmethod
    def read(cls, folder: Path, strength: float, *, recovered: bool = False) -> Self:
        """`recovered`: it may be one that recovery wrote."""
        config = read_config(folder)
        if not recovered:
            refuse_recovered(config)
        method = method_of(config)
        method.refuse(config)
        refuse_strength(strength)
        return cls(folder, method, method.scale(config, strength), strength)


@contextmanager
def opened(
    saved: SavedAdapter,
    masks: PruningMasks,
    model: Path | None,
    trained_on: TrainedOn | None,
    rank: int | None = None,
) -> Iterator[Adapter]:
    """The adapter under PEFT's names, with all its places on the model whose config is in folder `model`.

    `rank`: of the LoRA that it is to become.
    """
    method, config = saved.method, saved.config
    with opened_adapter(weights_file(saved.folder), method.naming, method.title) as tensors:
        for name in sorted(tensors.names):
            masks.layer_of(name)  # refuses layers that the checkpoint does not have, whatever stands before the number
        if model is None:
            yield Adapter(config, tensors, saved.strength, rank=rank)
            return
        found = _places(method, model, config, tensors, masks)
        whole = None if trained_on is None else WholeParameters(trained_on.origins, config, found)
        yield Adapter(config, tensors.placed(found), saved.strength, found, whole, rank)


def _places(
    method: AdapterMethod, model: Path, config: Mapping[str, Any], tensors: AdapterTensors, masks: PruningMasks
) -> AdapterPlaces:
    if method.needs_weights:
        return places_of_modules(model, config, method.naming, tensors.shapes, masks)
    return places(model, {**config, **method.trained}, method.naming, masks)
