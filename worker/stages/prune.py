"""prune: the base model without what matters least, and the masks that say what stayed.

Streams the base model's shards: one tensor, or one layer, is in memory. Writes `model/` (config.json, weights in the
base model's dtype, in shards of the same names, generation_config.json) and `pruning_masks.safetensors`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from publisher.architecture import Geometry, describe
from publisher.checkpoint.masks import FILE_NAME as MASKS
from publisher.checkpoint.masks import Masks, save_masks
from publisher.checkpoint.streaming import Entry
from publisher.errors import RequestFault
from publisher.recipe import PruningMethod
from worker.pruning.config import pruned_config
from worker.pruning.cutting import CutTensor, Kept, cut_tensors
from worker.pruning.selection import kept_units, kept_widths
from worker.stages.context import Stage, StageContext
from worker.stages.folder import write_json
from worker.stages.inputs import PruneInputs
from worker.stages.request import BuildRequest
from worker.stages.shards import ShardWriter
from worker.stages.store import stage_digest
from worker.stages.weights import read_config
from worker.streaming.files import TensorFiles

VERSION = 2
_COPIED = ("generation_config.json",)
#: reading, cutting and writing overlap: one thread waits for the disk while the other copies
_THREADS = 2


def digest(request: BuildRequest, fetch: str, calibrate: str) -> str:
    pruning = request.recipe.pruning.model_dump(mode="json", exclude={"criterion", "calibration", "storage"})
    return stage_digest(Stage.PRUNE, VERSION, {"fetch": fetch, "calibrate": calibrate, "pruning": pruning})


def run(request: BuildRequest, inputs: PruneInputs, output: Path, context: StageContext) -> None:
    """Raises RequestFault if a shard is damaged, a weight is not finite, or the recipe leaves nothing of a layer."""
    config = read_config(inputs.base)
    geometry = describe(config)
    model = output / "model"
    model.mkdir()
    for name in _COPIED:
        if (inputs.base / name).exists():
            shutil.copyfile(inputs.base / name, model / name)
    if request.recipe.pruning.method is PruningMethod.STRUCTURED:
        kept = kept_units(geometry, request.recipe.pruning, load_file(inputs.calibration / "importance.safetensors"))
        write_json(model / "config.json", pruned_config(config, geometry, kept_widths(geometry, kept)))
        write_cut(inputs.base, model, geometry, kept, context)
        save_masks(_masks(geometry, kept), output / MASKS)
    else:
        raise NotImplementedError


def write_cut(base: Path, model: Path, geometry: Geometry, kept: Kept, context: StageContext) -> None:
    """Write the kept units of `base` to `model`, every tensor to the shard that holds it in the base model."""
    stored = TensorFiles.open(base)
    tensors = sorted(cut_tensors(geometry, kept), key=lambda tensor: (_file(stored, tensor.source), tensor.source))

    def copy(tensor: CutTensor) -> None:
        source = stored.read([tensor.source])[tensor.source]
        refuse_not_finite(tensor.source, source)
        shards.write(tensor.name, tensor(source))

    with (
        ShardWriter(model, shard_entries(stored, tensors)) as shards,
        ThreadPoolExecutor(_THREADS) as threads,
    ):
        for done, _ in enumerate(threads.map(copy, tensors), 1):
            context.progress(done, len(tensors), "tensors")


def shard_entries(stored: TensorFiles, tensors: Iterable[CutTensor]) -> dict[str, list[Entry]]:
    """File name → what is written there, as in the base model."""
    files: dict[str, list[Entry]] = {}
    for tensor in tensors:
        entry = Entry(tensor.name, stored.tensors[tensor.source].dtype, tensor.shape)
        files.setdefault(_file(stored, tensor.source), []).append(entry)
    return files


def _file(stored: TensorFiles, name: str) -> str:
    if name not in stored.tensors:
        raise RequestFault(f"tensor {name} is missing from the base model's files.", way_out="Register it again.")
    return stored.tensors[name].path.name


def refuse_not_finite(name: str, tensor: Tensor) -> None:
    """A sum is much cheaper than a look at each value, and not finite if one value is not."""
    if not tensor.sum().isfinite() and not tensor.isfinite().all():
        raise RequestFault(
            f"tensor {name} of the base model has values that are NaN or infinite.",
            way_out="Fetch or save the model again; such a model cannot be pruned.",
        )


def _masks(geometry: Geometry, kept: Kept) -> Masks:
    return Masks(
        kinds=geometry.kinds,
        kind_of=geometry.kind_of,
        prefix=geometry.layer_prefix,
        kept={key: indices.tolist() for key, indices in kept.items()},
    )
