"""Refusing what cannot fit, before any work, where there is no other worker to wait for: `publisher build`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from publisher.architecture.geometry import Geometry
from publisher.architecture.widths import pruned_widths
from publisher.errors import RequestFault
from publisher.plan.align import AlignMemory, Machine, align_memory, optimizer_bytes
from publisher.plan.capacity import SLACK
from publisher.plan.plan import GIB
from publisher.plan.several import refuse_for_several
from publisher.recipe import Alignment, Recipe, Trainable
from publisher.recipe.optimizers.register import optimizers

if TYPE_CHECKING:  # its module imports torch, which takes seconds
    from worker.models.device import Device

#: what optimizers are compared by: a projection of a 7B model
_MATRIX = (4096, 4096)


def refuse_too_large(geometry: Geometry, recipe: Recipe, devices: Sequence[Device]) -> None:
    """Raises RequestFault naming needed and present memory if `devices` together cannot hold the align stage, or what
    of the recipe several cannot do together."""
    refuse_for_several(recipe, len(devices))
    machine = Machine.CPU if all(device.name == "cpu" for device in devices) else Machine.GPU
    memory = align_memory(geometry, pruned_widths(geometry, recipe.pruning), recipe, machine)
    if memory is None or recipe.alignment is None:
        return
    needed = memory.on(len(devices))
    memories = [device.memory for device in devices]
    present = max(memories) if machine is Machine.CPU else sum(memories)  # processes on the CPU share one memory
    if needed > SLACK * present:
        where = devices[0].name if len(devices) == 1 else f"{len(devices)} devices"
        raise RequestFault(
            f"aligning needs about {needed / GIB:.1f} GiB ({_parts(memory, len(devices))}), and {where} has "
            f"{present / GIB:.1f} GiB.",
            field="recipe.alignment",
            way_out=_way_out(recipe.alignment, machine, len(devices), matching=memory.matching > 0),
        )


def _parts(memory: AlignMemory, devices: int) -> str:
    named = {
        "weights, gradients and optimizer": memory.states,
        "base model as teacher": memory.teacher,
        "activations": memory.activations * devices,
    }
    if devices == 1:
        named |= {"weights before rounding": memory.masters, "matching gradients": memory.matching}
    return ", ".join(f"{name} {size / GIB:.1f}" for name, size in named.items() if size)


def _smaller_optimizers(alignment: Alignment, devices: int) -> str:
    """Those that keep less than half of what the recipe's does for a matrix, and that so many devices can have."""
    limit = optimizer_bytes(_MATRIX, alignment.optimizer, alignment.rank) / 2
    return ", ".join(
        f'"{spec.name}"'
        for spec in optimizers()
        if spec.state_bytes(_MATRIX, alignment.rank) < limit and (devices == 1 or spec.several_devices)
    )


def _way_out(alignment: Alignment, machine: Machine, devices: int, *, matching: bool) -> str:
    """What would make it smaller, of what the recipe does not do yet."""
    ways = []
    if matching and devices == 1:
        ways.append("alignment.gradient_matching 0")
    if alignment.trainable is Trainable.ALL:
        ways.append('alignment.trainable "low_rank"')
        if smaller := _smaller_optimizers(alignment, devices):
            ways.append(f"an optimizer with smaller states (alignment.optimizer {smaller})")
    if alignment.sequence_length > machine.tokens_at_once:
        ways.append("a smaller alignment.sequence_length")
    ways.append('a higher pruning.ratio, "alignment": null, or a worker with more memory (the plan names GPUs)')
    return f"Set {', or '.join(ways)}." if len(ways) > 1 else f"Choose {ways[0]}."
