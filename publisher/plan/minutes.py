"""Expected time per stage, from what a worker measured of itself."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.architecture.geometry import Geometry
from publisher.architecture.sparsity import sparse_matrices
from publisher.plan.choices import gradient_matching_of
from publisher.plan.sizes import Widths, working_parameters
from publisher.recipe import (
    CHOOSING_TOKENS,
    STRENGTH_TOKENS,
    STRENGTHS,
    Alignment,
    Evaluation,
    Objective,
    Recipe,
    Scheme,
)
from publisher.recipe.criteria.register import criterion_spec
from publisher.recipe.criteria.spec import InputStatistic

#: share of a matrix product's speed that the stages reach; one demo on two CPU cores: calibrate 0.50, align 0.44,
#: evaluate 0.30
EFFICIENCY = 0.4
HASH_AND_COPY_BYTES_PER_SECOND = 250e6
#: operations per weight that finding its nearest 4-bit value takes as long as: bitsandbytes does 20 million a second
#: on two CPU cores with 276 GFLOP/s; on a GPU it is nothing beside reading
_NF4_OPERATIONS = 5000
#: seconds to draw numbers, or to find that there is nothing to do
_NOTHING = 1.0
#: of a layer: each is rounded by itself to tell which stay in bf16
_MATRICES = 7
#: projections that read what no other one of their block reads
_READ_ALONE = ("o_proj", "down_proj")


@dataclass(frozen=True)
class Speed:
    """Floating-point operations a second in matrix products: in the type that the worker's device computes in, and in
    fp32, which is much slower on GPUs."""

    flops_per_second: float
    fp32_flops_per_second: float


@dataclass(frozen=True)
class StageSizes:
    """Bytes that the stages move."""

    base: int
    pruned: int
    checkpoint: int


def expected_minutes(
    geometry: Geometry, widths: Widths, recipe: Recipe, sizes: StageSizes, measured: Speed
) -> dict[str, float]:
    """Stage → minutes, without stages that the recipe leaves out."""
    base, pruned = working_parameters(geometry, geometry.full_widths), working_parameters(geometry, widths)
    speed = measured.flops_per_second * EFFICIENCY
    reading = sizes.base / HASH_AND_COPY_BYTES_PER_SECOND
    seconds: dict[str, float] = {"fetch": reading, "calibrate": _NOTHING, "prune": reading}
    seconds[scoring_stage(recipe)] += _scoring_seconds(geometry, recipe, speed, reading)
    if recipe.alignment:
        matching = bool(gradient_matching_of(recipe, geometry.kinds))
        operations, fp32_operations = _alignment_operations(base, pruned, recipe, recipe.alignment, matching=matching)
        if recipe.trains_quantized:
            operations += recipe.alignment.steps * geometry.parameters(widths) * _NF4_OPERATIONS
        if recipe.quantization.bf16_share:
            operations += 2 * base * min(CHOOSING_TOKENS, recipe.alignment.text_tokens) * (1 + _MATRICES)
            operations += base * _NF4_OPERATIONS
        seconds["align"] = operations / speed + fp32_operations / (measured.fp32_flops_per_second * EFFICIENCY)
    seconds["quantize"] = _NOTHING
    if recipe.quantization.scheme is not Scheme.NONE:
        searching = geometry.parameters(widths) * _NF4_OPERATIONS / speed
        seconds["quantize"] = sizes.pruned / HASH_AND_COPY_BYTES_PER_SECOND + searching
    if recipe.evaluation:
        aligned = recipe.alignment is not None
        seconds["evaluate"] = _evaluation_flops(base, pruned, recipe.evaluation, aligned=aligned) / speed
    copying = sizes.checkpoint / HASH_AND_COPY_BYTES_PER_SECOND
    seconds |= {"package": copying, "publish": 3 * copying}
    return {stage: round(value / 60, 3) for stage, value in seconds.items()}


def _alignment_operations(
    base: int, pruned: int, recipe: Recipe, alignment: Alignment, *, matching: bool
) -> tuple[float, float]:
    """In the type that the device computes in, and in fp32."""
    trained = 4 + 2 * (2 if alignment.activation_checkpointing else 1)
    tokens = alignment.steps * alignment.batch_tokens
    if matching:
        # the base model's gradients, and those of the pruned one at two places
        operations, fp32_operations = trained * base * tokens, 2 * trained * pruned * tokens
    else:
        asked = 2 * base if alignment.objective is Objective.DISTILLATION else 0
        operations, fp32_operations = (trained * pruned + asked) * tokens, 0
    if recipe.pruning.method.removes_units:
        # forward of text and of its changes: the base model once, the pruned one for each of two matrices; then the
        # pruned one for what two more groups of matrices read, and for what comes after the layer
        operations += (4 * base + 14 * pruned) * min(alignment.text_tokens, alignment.reconstruction_tokens)
    return operations, fp32_operations


def scoring_stage(recipe: Recipe) -> str:
    """Units are scored before anything is cut; of weights each layer is scored with what the pruned ones before it
    put out, so prune does it."""
    return "calibrate" if recipe.pruning.method.removes_units else "prune"


def _scoring_seconds(geometry: Geometry, recipe: Recipe, speed: float, reading: float) -> float:
    """On top of what the stage takes to read and write: operations per weight and token, 2 for a product."""
    criterion, text = criterion_spec(recipe.pruning.criterion), recipe.pruning.calibration
    tokens = text.samples * text.sequence_length if text and criterion.reads_text else 0
    products = working_parameters(geometry, geometry.full_widths) * tokens
    if recipe.pruning.method.removes_units:
        units = criterion.scoring
        return units.readings * reading + units.operations * products / speed
    weights = criterion.pruning
    inverses = _hessian_flops(geometry, recipe, tokens) if weights.inputs is InputStatistic.HESSIAN else 0
    return (weights.operations * products + inverses) / speed


def _hessian_flops(geometry: Geometry, recipe: Recipe, tokens: int) -> float:
    """X Xᵀ and its inverse's Cholesky factor for every input, which several matrices `(out, in)` may read, and for
    every matrix the update of all later columns."""
    flops, inputs = 0.0, set()
    for name, (rows, columns) in sparse_matrices(geometry, recipe.pruning).items():
        flops += rows * columns**2
        block, _, projection = name.removesuffix(".weight").rpartition(".")
        inputs.add((block, projection in _READ_ALONE, columns))
    return flops + sum(columns**2 * (2 * tokens + columns) for _, _, columns in inputs)


def _evaluation_flops(base: int, pruned: int, evaluation: Evaluation, *, aligned: bool) -> float:
    """Without harness tasks, whose length nobody knows, and as if the base model fitted for training a LoRA on it."""
    overlap = evaluation.sequence_length / (evaluation.stride or evaluation.sequence_length)
    tokens = evaluation.tokens * len(evaluation.corpora) * overlap
    on_base = 1 + evaluation.probe * (1 + evaluation.direct)
    models = 2 * base * on_base + 2 * pruned * (3 if aligned else 2)
    # frozen weights need no weight gradients: forward 2, backward 2 operations per weight and token
    trained = pruned + base * evaluation.direct
    budget = evaluation.probe_budget
    probe = 4 * trained * budget.steps * budget.batch_size * budget.sequence_length
    strengths = 2 * base * len(STRENGTHS) * STRENGTH_TOKENS
    return models * tokens + (probe + strengths if evaluation.probe else 0)
