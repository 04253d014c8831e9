"""The plan: what a recipe will cost and give, computed before anything runs; no weights, no torch."""

from __future__ import annotations

from math import ceil, prod

from pydantic import BaseModel, Field

from publisher.architecture import Geometry, LayerWidths, Shape, pruned_widths
from publisher.recipe import Objective, Recipe, Scheme

BF16 = 2  # bytes
FP32 = 4
#: bitsandbytes' defaults: one 8-bit scale per 64 weights, and per 256 of those scales one fp32 scale
NF4_BLOCK, NF4_NESTED_BLOCK = 64, 256
GIB = 2**30
#: reference adapter that memory and costs are stated for
LORA_RANK, LORA_TOKENS = 8, 512
#: share of a matrix product's speed that the stages reach; one demo on two CPU cores: calibrate 0.50, align 0.44,
#: evaluate 0.30
EFFICIENCY = 0.4
HASH_AND_COPY_BYTES_PER_SECOND = 250e6


class Counts(BaseModel):
    base: int
    pruned: int


class Reduction(BaseModel):
    """Base divided by pruned. `bytes` is real files; `bytes_ideal` counts 4-bit as a quarter, as the paper."""

    parameters: float
    bytes: float
    bytes_ideal: float


class Bytes(BaseModel):
    base: int = Field(description="base model's weight files")
    pruned: int = Field(description="pruned weights in bf16")
    checkpoint: int = Field(description="weights as published: what a downstream user downloads")


class Memory(BaseModel):
    """Bytes. LoRA: rank 8 on every projection, one sequence of 512 tokens, activation checkpointing, AdamW."""

    train_lora: int
    train_lora_on_base: int = Field(description="the same on the base model in bf16")
    align: int | None = Field(description="weights, gradients and AdamW states in fp32, teacher, activations")


class Plan(BaseModel):
    parameters: Counts
    reduction: Reduction
    bytes: Bytes
    memory: Memory
    align_gpus_80gib: int | None = Field(description="GPUs of 80 GiB that hold the align stage")
    minutes: dict[str, float] = Field(description="expected minutes per stage, from the workers' measured speed")
    widths: list[LayerWidths]


def make_plan(geometry: Geometry, recipe: Recipe, *, base_bytes: int | None = None, flops_per_second: float) -> Plan:
    """Plan `recipe` for a base model. `base_bytes`: size of its weight files (bf16 is assumed if unknown);
    `flops_per_second`: what a worker measured. Raises RequestFault for a recipe that leaves nothing of a layer."""
    widths = pruned_widths(geometry, recipe.pruning)
    base, pruned = geometry.parameters(), geometry.parameters(widths)
    sizes = Bytes(
        base=base * BF16 if base_bytes is None else base_bytes,
        pruned=pruned * BF16,
        checkpoint=checkpoint_bytes(geometry, widths, recipe.quantization.scheme),
    )
    align = align_memory(geometry, widths, recipe)
    ideal = pruned * BF16 / 4 if recipe.quantization.scheme is Scheme.NF4 else pruned * BF16
    return Plan(
        parameters=Counts(base=base, pruned=pruned),
        reduction=Reduction(
            parameters=base / pruned, bytes=sizes.base / sizes.checkpoint, bytes_ideal=base * BF16 / ideal
        ),
        bytes=sizes,
        memory=Memory(
            train_lora=sizes.checkpoint + _adapter_memory(geometry, widths),
            train_lora_on_base=base * BF16 + _adapter_memory(geometry, [geometry.full_width] * geometry.layers),
            align=align,
        ),
        align_gpus_80gib=None if align is None else ceil(align / (80 * GIB)),
        minutes=_minutes(geometry, widths, recipe, sizes, flops_per_second),
        widths=list(widths),
    )


def checkpoint_bytes(geometry: Geometry, widths: tuple[LayerWidths, ...], scheme: Scheme) -> int:
    """Size of the published weights: projections of the decoder layers in NF4, the rest in bf16."""
    return sum(_stored_bytes(name, shape, scheme) for name, shape in geometry.tensor_shapes(widths).items())


def _stored_bytes(name: str, shape: Shape, scheme: Scheme) -> int:
    weights = prod(shape)
    if scheme is Scheme.NONE or not _is_projection(name):
        return weights * BF16
    scales = ceil(weights / NF4_BLOCK)
    return ceil(weights / 2) + scales + ceil(scales / NF4_NESTED_BLOCK) * FP32


def _is_projection(name: str) -> bool:
    return ".layers." in name and name.endswith("_proj.weight")


def align_memory(geometry: Geometry, widths: tuple[LayerWidths, ...], recipe: Recipe) -> int | None:
    """Bytes to align: 16 per weight (fp32 weight, gradient, two AdamW moments), the teacher in bf16 when
    distilling, activations of one sequence; None without alignment."""
    if recipe.alignment is None:
        return None
    teacher = geometry.parameters() * BF16 if recipe.alignment.objective is Objective.DISTILLATION else 0
    tokens = recipe.alignment.sequence_length
    return geometry.parameters(widths) * 4 * FP32 + teacher + _activations(geometry, widths, tokens) * 2


def _adapter_memory(geometry: Geometry, widths: tuple[LayerWidths, ...] | list[LayerWidths]) -> int:
    """Adapter weights with gradient and AdamW moments in fp32, and activations."""
    projections = [s for n, s in geometry.tensor_shapes(widths).items() if _is_projection(n)]
    weights = LORA_RANK * sum(rows + columns for rows, columns in projections)
    return weights * 4 * FP32 + _activations(geometry, widths, LORA_TOKENS)


def _activations(geometry: Geometry, widths: tuple[LayerWidths, ...] | list[LayerWidths], tokens: int) -> int:
    """With checkpointing: every layer's input, one layer's inside, and a chunk of logits in fp32."""
    widest = max(4 * width.query_heads * geometry.head_dim + 4 * width.neurons for width in widths)
    inputs = geometry.layers * geometry.hidden_size
    return tokens * (inputs + widest + 8 * geometry.hidden_size) * BF16 + tokens * geometry.vocab_size * FP32 * 2


def _minutes(
    geometry: Geometry, widths: tuple[LayerWidths, ...], recipe: Recipe, sizes: Bytes, flops_per_second: float
) -> dict[str, float]:
    base, pruned = geometry.parameters(), geometry.parameters(widths)
    speed = flops_per_second * EFFICIENCY
    copying = sizes.base / HASH_AND_COPY_BYTES_PER_SECOND
    seconds: dict[str, float] = {"fetch": copying, "calibrate": 1.0, "prune": copying}
    if recipe.pruning.criterion.needs_text and (text := recipe.pruning.calibration):
        seconds["calibrate"] = 6 * base * text.samples * text.sequence_length / speed
    if recipe.alignment:
        per_token = 6 * pruned + (2 * base if recipe.alignment.objective is Objective.DISTILLATION else 0)
        seconds["align"] = per_token * recipe.alignment.steps * recipe.alignment.batch_tokens / speed
    seconds["quantize"] = sizes.pruned / HASH_AND_COPY_BYTES_PER_SECOND
    if recipe.evaluation:
        seconds["evaluate"] = _evaluation_flops(base, pruned, recipe) / speed
    copying = sizes.checkpoint / HASH_AND_COPY_BYTES_PER_SECOND
    seconds |= {"package": copying, "publish": 3 * copying}
    return {stage: round(value / 60, 3) for stage, value in seconds.items()}


def _evaluation_flops(base: int, pruned: int, recipe: Recipe) -> float:
    evaluation = recipe.evaluation
    assert evaluation is not None
    tokens = evaluation.tokens * len(evaluation.corpora)
    models = 2 * base * (2 if evaluation.probe else 1) + 2 * pruned * (3 if recipe.alignment else 2)
    budget = evaluation.probe_budget
    # frozen weights need no weight gradients: forward 2, backward 2 operations per weight and token
    probe = 4 * pruned * budget.steps * budget.batch_size * budget.sequence_length if evaluation.probe else 0
    return models * tokens + probe
