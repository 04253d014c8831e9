"""prune: the base model without what matters least, and the masks that say what stayed.

Streams the base model's shards: one tensor, or one layer, is in memory. Writes `model/` (config.json, weights in the
base model's dtype, in shards of the same names, generation_config.json) and `pruning_masks.safetensors`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import load_file

from publisher.architecture.geometry import Geometry
from publisher.architecture.masks_file import FILE_NAME as MASKS
from publisher.checkpoint.masks import Masks, save_masks
from publisher.errors import RequestFault
from publisher.families.describe import describe
from publisher.loading.notice import PER_LAYER, with_notice
from publisher.recipe import Layout
from publisher.recipe.criteria.register import criterion_spec
from publisher.recipe.stages import Stage
from worker.context import StageContext
from worker.pruning.config import pruned_config
from worker.pruning.cutting import Kept
from worker.pruning.scores import scored_tensors
from worker.pruning.selection import kept_units, kept_widths
from worker.request import BuildRequest
from worker.stages.calibrate import IMPORTANCE
from worker.stages.inputs import PruneInputs
from worker.stages.prune.units import write_cut
from worker.stages.prune.weights import SparsePruning
from worker.stages.spec import Digests, StageSpec
from worker.storage.folder import write_json
from worker.storage.store import stage_digest
from worker.streaming.weights import read_config

VERSION = 5
_COPIED = ("generation_config.json",)
#: where somebody once had the base model, which is not this model
_WHERE = "_name_or_path"


def digest(request: BuildRequest, digests: Digests) -> str:
    pruning = request.recipe.pruning.model_dump(mode="json", exclude={"calibration", "storage"})
    return stage_digest(
        Stage.PRUNE, VERSION, {"fetch": digests[Stage.FETCH], "calibrate": digests[Stage.CALIBRATE], "pruning": pruning}
    )


def run(request: BuildRequest, inputs: PruneInputs, output: Path, context: StageContext) -> None:
    """Raises RequestFault if a shard is damaged, a weight is not finite, or the recipe leaves nothing of a layer."""
    config = {key: value for key, value in read_config(inputs.base).items() if key != _WHERE}
    geometry = describe(config)
    model = output / "model"
    model.mkdir()
    for name in _COPIED:
        if (inputs.base / name).exists():
            shutil.copyfile(inputs.base / name, model / name)
    pruning = request.recipe.pruning
    if pruning.method.removes_units:
        kept = kept_units(geometry, pruning, load_file(inputs.calibration / IMPORTANCE))
        narrower = pruned_config(config, geometry, kept_widths(geometry, kept))
        if pruning.layout is Layout.UNIFORM and PER_LAYER in narrower:
            raise RequestFault(
                f"layout uniform: a config of family {geometry.family} cannot give all layers one width.",
                field="recipe.pruning.layout",
                way_out="Leave layout out.",
            )
        checked = scored_tensors(geometry) if criterion_spec(pruning.criterion).scoring.checks_weights else ()
        write_cut(inputs.base, model, geometry, kept, context, checked=checked)
        write_json(model / "config.json", with_notice(narrower))
        save_masks(_masks(geometry, kept), output / MASKS)
    else:
        SparsePruning(inputs, geometry, pruning, request.device, context).write(model, output / MASKS)
        write_json(model / "config.json", config)


def _masks(geometry: Geometry, kept: Kept) -> Masks:
    return Masks(
        kinds=geometry.kinds,
        kind_of=geometry.kind_of,
        prefix=geometry.layer_prefix,
        kept={key: indices.tolist() for key, indices in kept.items()},
    )


PRUNE = StageSpec(
    name=Stage.PRUNE,
    needs=(Stage.FETCH, Stage.CALIBRATE),
    inputs=PruneInputs.of,
    digest=digest,
    run=run,
)
