"""The plan: what a recipe will cost and give, computed before anything runs; no weights, no torch."""

from __future__ import annotations

from pydantic import BaseModel, Field

from publisher.architecture.geometry import Geometry, LayerWidths
from publisher.architecture.sparsity import parameters_of
from publisher.architecture.widths import pruned_widths
from publisher.plan.align import CARDS, align_memory
from publisher.plan.minutes import Speed, StageSizes, expected_minutes
from publisher.plan.needs import Needs, job_needs
from publisher.plan.notes import certificate_notes, plan_notes
from publisher.plan.sizes import (
    BF16,
    FP32,
    GIB,
    checkpoint_bytes,
    lora_memory,
    lora_memory_on_base,
)
from publisher.recipe import Recipe, Scheme

__all__ = [
    "GIB",
    "Bytes",
    "Counts",
    "Memory",
    "Plan",
    "Reduction",
    "certificate_notes",
    "make_plan",
    "needs_of_recipe",
    "stored_weight_bytes",
]


class Counts(BaseModel):
    """Of masks of weights the kept weights count."""

    base: int = Field(description="of the base model")
    pruned: int = Field(description="of the pruned one")


class Reduction(BaseModel):
    """Base divided by pruned. `bytes` is real files; `bytes_ideal` counts 4-bit as a quarter, as the paper."""

    parameters: float = Field(description="in numbers")
    bytes: float = Field(description="in weight files as published")
    bytes_ideal: float = Field(description="with 4-bit weights counted as a quarter of 16-bit ones")


class Bytes(BaseModel):
    base: int = Field(description="base model's weight files")
    pruned: int = Field(description="pruned weights before quantization, zeros written out")
    checkpoint: int = Field(description="weights as published, with masks of weights: what a downstream user downloads")


class Memory(BaseModel):
    """Bytes. LoRA: rank 8 on every projection, one sequence of 512 tokens, activation checkpointing, AdamW."""

    train_lora: int = Field(description="to train LoRA on the checkpoint, in bytes")
    train_lora_on_base: int = Field(description="the same on the base model in bf16")
    align: int | None = Field(description="on one GPU: `align_states`, the base model as teacher, activations")
    align_states: int | None = Field(
        description="fp32 weights and gradients, the optimizer's states, bf16 copies that GPUs multiply with"
    )


class Plan(BaseModel):
    parameters: Counts = Field(description="how many numbers there are")
    reduction: Reduction = Field(description="base divided by pruned")
    bytes: Bytes = Field(description="sizes of files")
    memory: Memory = Field(description="bytes on a GPU")
    align_gpus_80gib: int | None = Field(description="GPUs of 80 GiB that hold the align stage")
    align_gpus: dict[str, int | None] | None = Field(
        description="memory of a GPU in GiB → how many of these hold the align stage, sharing states and teacher; "
        "null: one sequence's activations are too much for one"
    )
    needs: Needs = Field(description="what a worker has to hold: a job waits for one that does")
    minutes: dict[str, float] = Field(description="expected minutes per stage, from the workers' measured speed")
    base_widths: list[LayerWidths] = Field(description="of every layer; 0 is what cannot be removed or is not there")
    widths: list[LayerWidths] = Field(description="of every layer when pruned")
    notes: list[str] = Field(description="what the numbers alone do not tell")


def make_plan(
    geometry: Geometry,
    recipe: Recipe,
    *,
    base_bytes: int | None = None,
    is_local: bool = False,
    flops_per_second: float,
    fp32_flops_per_second: float | None = None,
) -> Plan:
    """Plan `recipe` for a base model. `base_bytes`: size of its weight files (bf16 is assumed if unknown), which are
    not copied if it `is_local`;
    `flops_per_second`: what a worker measured; in fp32 the same if left out, as on a CPU. Raises RequestFault for a
    recipe that leaves nothing of a layer."""
    widths = pruned_widths(geometry, recipe.pruning)
    base, pruned = geometry.parameters(), parameters_of(geometry, widths, recipe.pruning)
    sizes = _bytes(geometry, widths, recipe, base_bytes)
    align = align_memory(geometry, widths, recipe)
    ideal = pruned * BF16 / 4 if recipe.quantization.scheme is Scheme.NF4 else pruned * BF16
    return Plan(
        parameters=Counts(base=base, pruned=pruned),
        reduction=Reduction(
            parameters=base / pruned, bytes=sizes.base / sizes.checkpoint, bytes_ideal=base * BF16 / ideal
        ),
        bytes=sizes,
        memory=Memory(
            train_lora=lora_memory(geometry, widths, recipe),
            train_lora_on_base=lora_memory_on_base(geometry),
            align=align and align.total,
            align_states=align and align.states,
        ),
        align_gpus_80gib=align and align.gpus(80),
        align_gpus=align and {str(gib): align.gpus(gib) for gib in CARDS},
        needs=job_needs(geometry, widths, recipe, base_bytes=sizes.base, is_local=is_local),
        minutes=expected_minutes(
            geometry,
            widths,
            recipe,
            StageSizes(sizes.base, sizes.pruned, sizes.checkpoint),
            Speed(flops_per_second, fp32_flops_per_second or flops_per_second),
        ),
        base_widths=list(geometry.full_widths),
        widths=list(widths),
        notes=plan_notes(geometry, recipe),
    )


def published_bytes(geometry: Geometry, recipe: Recipe, *, base_bytes: int) -> int:
    """Of the checkpoint's weight files. RequestFault for a recipe that leaves nothing of a layer."""
    return _bytes(geometry, pruned_widths(geometry, recipe.pruning), recipe, base_bytes).checkpoint


def needs_of_recipe(geometry: Geometry, recipe: Recipe, *, base_bytes: int, is_local: bool) -> Needs:
    """The part of a plan that every job keeps. Raises RequestFault as `make_plan`."""
    widths = pruned_widths(geometry, recipe.pruning)
    return job_needs(geometry, widths, recipe, base_bytes=base_bytes, is_local=is_local)


def _bytes(geometry: Geometry, widths: tuple[LayerWidths, ...], recipe: Recipe, base_bytes: int | None) -> Bytes:
    base = geometry.parameters()
    weight = stored_weight_bytes(base, base_bytes, recipe)
    return Bytes(
        base=base * BF16 if base_bytes is None else base_bytes,
        pruned=geometry.parameters(widths) * weight,
        checkpoint=checkpoint_bytes(geometry, widths, recipe, weight),
    )


def stored_weight_bytes(base: int, base_bytes: int | None, recipe: Recipe) -> int:
    """Bytes per weight that is not in 4 bits: align and quantize write bf16, prune alone the base model's own type."""
    if recipe.alignment or recipe.quantization.scheme is not Scheme.NONE or base_bytes is None:
        return BF16
    return FP32 if base_bytes > 3 * base else BF16
