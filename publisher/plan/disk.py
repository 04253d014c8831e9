"""Room that stages take on the worker's disk at their peak, from shapes alone: what they write, and what they keep
beside it until they are done."""

from __future__ import annotations

from math import ceil, prod

from publisher.architecture.geometry import Geometry
from publisher.architecture.widths import pruned_widths
from publisher.plan.align import low_rank_factors, optimizer_bytes, trained_shapes
from publisher.plan.sizes import BF16, FP32, Widths, checkpoint_bytes, masking_bytes
from publisher.recipe import Alignment, Recipe, Scheme, Storage, Trainable
from publisher.recipe.criteria.register import criterion_spec
from publisher.recipe.stages import Stage

#: the state that was saved last stays until the next one is whole
_STATES_AT_ONCE = 2


def disk_bytes(geometry: Geometry, recipe: Recipe, base_bytes: int) -> dict[Stage, int]:
    """Stage → bytes, without what is links or takes a few MiB. `base_bytes`: size of the base model's files, which
    fetch downloads unless they lie in a folder here.

    Raises RequestFault for a recipe that leaves nothing of a layer.
    """
    widths = pruned_widths(geometry, recipe.pruning)
    weight = FP32 if base_bytes > 3 * geometry.parameters() else BF16
    needed = {
        Stage.FETCH: base_bytes,
        Stage.CALIBRATE: _hidden_states(geometry, recipe),
        Stage.PRUNE: geometry.parameters(widths) * weight + masking_bytes(geometry, recipe),
    }
    if recipe.alignment:
        needed[Stage.ALIGN] = geometry.parameters(widths) * BF16 + _states(geometry, widths, recipe.alignment)
    if recipe.quantization.scheme is not Scheme.NONE or recipe.pruning.storage is Storage.COMPRESSED:
        needed[Stage.QUANTIZE] = checkpoint_bytes(geometry, widths, recipe)
    return needed


def _hidden_states(geometry: Geometry, recipe: Recipe) -> int:
    """What enters each layer, of all the text that units are scored with."""
    text, criterion = recipe.pruning.calibration, criterion_spec(recipe.pruning.criterion)
    if text is None or not (recipe.pruning.method.removes_units and criterion.reads_text):
        return 0
    return geometry.layers * text.samples * text.sequence_length * geometry.hidden_size * FP32


def _states(geometry: Geometry, widths: Widths, alignment: Alignment) -> int:
    """Weights in fp32 and what the optimizer keeps of them."""
    if not alignment.steps:
        return 0
    matrices, others, _ = trained_shapes(geometry, widths)
    if alignment.trainable is Trainable.LOW_RANK:
        matrices, others = list(low_rank_factors(matrices, alignment.rank)), []
    kept = sum(optimizer_bytes(shape, alignment.optimizer, alignment.rank) for shape in matrices)
    kept += sum(optimizer_bytes(shape, alignment.optimizer, alignment.rank, matrix=False) for shape in others)
    weights = sum(map(prod, [*matrices, *others])) * FP32
    return _STATES_AT_ONCE * ceil(weights + kept)
