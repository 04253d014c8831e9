"""prune: the base model without its least important heads and neurons, and the masks that say which stayed.

Streams the base model's shards, one in memory at a time. Writes `model/` (config.json, weights in the base model's
dtype, shard by shard under the same names, generation_config.json) and `pruning_masks.safetensors`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from publisher.architecture import Geometry, Shape, pruned_widths
from publisher.base_model import INDEX_FILE
from publisher.checkpoint.masks import FILE_NAME as MASKS
from publisher.checkpoint.masks import Masks, save_masks
from worker.pruning.config import pruned_config
from worker.pruning.groups import pruning_groups
from worker.pruning.structured import Cut, kept_units, tensor_cuts
from worker.stages.context import Stage, StageContext
from worker.stages.folder import write_json
from worker.stages.inputs import PruneInputs
from worker.stages.request import BuildRequest
from worker.stages.store import stage_digest
from worker.stages.weights import read_config, tensors_of, weight_files

VERSION = 1
_COPIED = ("generation_config.json",)


def digest(request: BuildRequest, fetch: str, calibrate: str) -> str:
    pruning = request.recipe.pruning
    return stage_digest(
        Stage.PRUNE,
        VERSION,
        {
            "fetch": fetch,
            "calibrate": calibrate,
            "pruning": pruning.model_dump(mode="json", include={"method", "ratio", "protect_first", "protect_last"}),
        },
    )


def run(request: BuildRequest, inputs: PruneInputs, output: Path, context: StageContext) -> None:
    """Raises RequestFault if a shard is damaged or the ratio leaves nothing of a layer."""
    config = read_config(inputs.base)
    geometry = Geometry.from_config(config)
    widths = pruned_widths(geometry, request.recipe.pruning)
    groups = pruning_groups(geometry)
    kept = kept_units(groups, widths, load_file(inputs.importance))
    model = output / "model"
    model.mkdir()
    _write_weights(inputs.base, model, geometry.tensor_shapes(widths), tensor_cuts(groups, kept), context)
    write_json(model / "config.json", pruned_config(config, geometry, widths))
    for name in _COPIED:
        if (inputs.base / name).exists():
            shutil.copyfile(inputs.base / name, model / name)
    save_masks(_masks(geometry, kept), output / MASKS)


@dataclass
class _Written:
    """What the index says, and how far the work is. `bytes` of tensors."""

    shards: dict[str, str] = field(default_factory=dict)
    parameters: int = 0
    bytes: int = 0


def _write_weights(
    base: Path, model: Path, shapes: Mapping[str, Shape], cuts: Mapping[str, Cut], context: StageContext
) -> None:
    files = weight_files(base)
    written = _Written()
    for path in files:
        tensors = _cut_shard(path, shapes, cuts, written, context)
        if tensors:
            save_file(tensors, model / path.name, metadata={"format": "pt"})
            context.check()
    if len(files) > 1:
        write_json(model / INDEX_FILE, _index(written))


def _cut_shard(
    path: Path, shapes: Mapping[str, Shape], cuts: Mapping[str, Cut], written: _Written, context: StageContext
) -> dict[str, Tensor]:
    """The shard's tensors that the pruned model has: no head that is tied anyway, no buffers of old versions."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in tensors_of(path):
        if name not in shapes:
            continue
        tensors[name] = cuts[name](tensor) if name in cuts else tensor
        assert tuple(tensors[name].shape) == shapes[name], name
        written.shards[name] = path.name
        written.parameters += prod(shapes[name])
        written.bytes += tensors[name].nbytes
        context.progress(len(written.shards), len(shapes), "tensors")
    return tensors


def _index(written: _Written) -> dict[str, Any]:
    return {
        "metadata": {"total_parameters": written.parameters, "total_size": written.bytes},
        "weight_map": written.shards,
    }


def _masks(geometry: Geometry, kept: Mapping[tuple[int, str], Tensor]) -> Masks:
    def indices(unit: str) -> dict[int, Sequence[int]]:
        return {layer: chosen.tolist() for (layer, of), chosen in kept.items() if of == unit}

    return Masks(
        head_dim=geometry.head_dim,
        group_size=geometry.group_size,
        kv_heads=geometry.kv_heads,
        neurons=geometry.intermediate_size,
        kept_kv_heads=indices("kv_heads"),
        kept_neurons=indices("neurons"),
    )
