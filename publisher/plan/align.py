"""Memory to align: weights and the optimizer's states, the base model as teacher, activations; and on how many GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, prod

from publisher.architecture.geometry import Geometry
from publisher.architecture.structure import Shape
from publisher.plan.choices import gradient_matching_of
from publisher.plan.sizes import BF16, FP32, GIB, Widths, head_name, layer_outputs, layer_shapes
from publisher.recipe import Alignment, Objective, Optimizer, Recipe, Trainable
from publisher.recipe.optimizers.register import optimizer_spec

#: memory of the cards that the plan speaks of, in GiB
CARDS = (24, 48, 80, 141)
#: fp32 numbers of a chunk of logits, and how many such chunks exist at once (worker.training.objective)
_LOGITS_AT_ONCE, _LOGITS = 2**23, 4
#: more GPUs than this are not looked at
_MOST_GPUS = 1024


class Machine(StrEnum):
    """Where it runs decides the type of matrix products and how many tokens go through the model at once."""

    GPU = "gpu"
    CPU = "cpu"

    @property
    def tokens_at_once(self) -> int:
        """As worker.training.batch_loss has them."""
        return 8192 if self is Machine.GPU else 512

    @property
    def weight_bytes(self) -> int:
        """Of a weight that is only computed with."""
        return BF16 if self is Machine.GPU else FP32


@dataclass(frozen=True)
class AlignMemory:
    """Bytes. GPUs share `states` (trained and frozen weights, gradients, the optimizer's) and `teacher`; each has
    `activations` of its own. What one GPU alone keeps besides: `masters`, of weights that are rounded to 4 bits or
    moved to match gradients, and `matching`, what that takes beyond."""

    states: int
    teacher: int
    activations: int
    masters: int = 0
    matching: int = 0

    @property
    def total(self) -> int:
        return self.states + self.teacher + self.activations + self.masters + self.matching

    def on(self, devices: int) -> int:
        """Of all `devices` together."""
        return self.total if devices == 1 else self.states + self.teacher + devices * self.activations

    def gpus(self, gib: int) -> int | None:
        """GPUs of `gib` GiB that hold it; None if activations alone are too much for one."""
        if self.total <= gib * GIB:
            return 1
        left = gib * GIB - self.activations
        if left <= 0:
            return None
        count = max(2, ceil((self.states + self.teacher) / left))
        return count if count <= _MOST_GPUS else None


def align_memory(
    geometry: Geometry, widths: Widths, recipe: Recipe, machine: Machine = Machine.GPU
) -> AlignMemory | None:
    """What the align stage needs at its peak; None where nothing is trained: reconstruction holds a layer at a time."""
    alignment = recipe.alignment
    if alignment is None or not alignment.steps:
        return None
    taught = alignment.objective is Objective.DISTILLATION
    matrices = sum(map(prod, trained_shapes(geometry, widths)[0])) * FP32
    activations = _activations(geometry, widths, alignment, machine)
    matching = gradient_matching_of(recipe, geometry.kinds)
    return AlignMemory(
        states=ceil(_states(geometry, widths, alignment, machine)),
        teacher=geometry.parameters() * machine.weight_bytes if taught else 0,
        activations=activations,
        masters=matrices if recipe.trains_quantized or matching else 0,
        matching=matrices + _matched(geometry, widths, alignment, machine) - activations if matching else 0,
    )


def _matched(geometry: Geometry, widths: Widths, alignment: Alignment, machine: Machine) -> int:
    """Activations of the pruned model in fp32, or of the base model, whichever are more: they take turns."""
    return max(
        _activations(geometry, widths, alignment, machine, Machine.CPU),
        _activations(geometry, geometry.full_widths, alignment, machine),
    )


def _states(geometry: Geometry, widths: Widths, alignment: Alignment, machine: Machine) -> float:
    matrices, others, frozen = trained_shapes(geometry, widths)
    if alignment.trainable is Trainable.LOW_RANK:
        base = geometry.parameters(widths) * machine.weight_bytes
        return base + sum(
            _trained(shape, alignment, Machine.CPU) for shape in low_rank_factors(matrices, alignment.rank)
        )
    trained = sum(_trained(shape, alignment, machine) for shape in matrices)
    trained += sum(_trained(shape, alignment, machine, matrix=False) for shape in others)
    return trained + frozen * FP32


def _trained(shape: Shape, alignment: Alignment, machine: Machine, *, matrix: bool = True) -> float:
    """fp32 weight and gradient, what the optimizer keeps, and on a GPU the bf16 copy that products are made with."""
    copies = 2 * FP32 + (BF16 if machine is Machine.GPU else 0)
    return prod(shape) * copies + optimizer_bytes(shape, alignment.optimizer, alignment.rank, matrix=matrix)


def optimizer_bytes(shape: Shape, optimizer: Optimizer, rank: int, *, matrix: bool = True) -> float:
    """What `optimizer` keeps for a parameter; `matrix`: it is one of a layer's, not embeddings, a norm or a bias."""
    declared = optimizer_spec(optimizer)
    trains = declared if matrix or declared.beside is None else optimizer_spec(declared.beside)
    return trains.state_bytes(shape, rank)


def trained_shapes(geometry: Geometry, widths: Widths) -> tuple[list[Shape], list[Shape], int]:
    """Shapes of layers' matrices, shapes of what else is trained, and how many weights the frozen LM head has."""
    matrices: list[Shape] = []
    others: list[Shape] = []
    for kind, width in zip(geometry.kind_of, widths, strict=True):
        for shape in layer_shapes(geometry.kinds[kind], width):
            (matrices if len(shape) == 2 else others).append(shape)
    head = head_name(geometry)
    others += [shape for name, shape in geometry.outside.items() if name != head]
    return matrices, others, prod(geometry.outside[head]) if head else 0


def low_rank_factors(matrices: list[Shape], rank: int) -> Iterator[Shape]:
    """LoRA's two matrices for each."""
    for rows, columns in matrices:
        yield from ((rank, columns), (rows, rank))


def _activations(
    geometry: Geometry, widths: Widths, alignment: Alignment, machine: Machine, precision: Machine | None = None
) -> int:
    """Everything that backward needs of the tokens that go through at once, and some chunks of logits.

    With checkpointing what enters each layer, and all of one layer.

    Measured on LLaMA layers: in fp32 two numbers for each output of a linear map and two for each hidden one; with
    products in bf16 two and nine of two bytes, since the residual stream and norms stay in fp32. `precision`: the
    machine whose type they are in, if not this one's.
    """
    length = alignment.sequence_length
    tokens = min(alignment.batch_tokens, max(length, machine.tokens_at_once // length * length))
    hidden, size = (9, BF16) if (precision or machine) is Machine.GPU else (2, FP32)
    pairs = list(zip(geometry.kind_of, widths, strict=True))
    outputs = {(kind, width): layer_outputs(geometry, geometry.kinds[kind], width) for kind, width in set(pairs)}
    layers = [2 * outputs[pair] + hidden * geometry.hidden_size for pair in pairs]
    if alignment.activation_checkpointing:
        # on a GPU the residual stream is in fp32, whatever products are in
        kept = max(layers) * size + geometry.layers * geometry.hidden_size * FP32
    else:
        kept = sum(layers) * size
    return tokens * kept + _LOGITS * max(_LOGITS_AT_ONCE, geometry.vocab_size) * FP32
