"""What a recipe must look like for several devices to align together."""

from __future__ import annotations

from publisher.errors import RequestFault, listed
from publisher.recipe import Alignment, Recipe
from publisher.recipe.optimizers.register import optimizer_spec, optimizers

_ONE_DEVICE = "have a worker with one device build it (PUBLISHER_WORKER_DEVICES empty, or no --devices)"


def refuse_for_several(recipe: Recipe, devices: int) -> None:
    """Raises RequestFault naming the field if `devices` devices cannot train by `recipe` together; one always can."""
    alignment = recipe.alignment
    if alignment is None or devices < 2:
        return
    _refuse_optimizer(alignment, devices)
    _refuse_masks(recipe, devices)
    if alignment.quantization_aware:
        raise RequestFault(
            f"quantization_aware true rounds whole weights, and each of {devices} devices holds a part of them.",
            field="recipe.alignment.quantization_aware",
            way_out=f"Leave it out, or {_ONE_DEVICE}.",
        )
    if alignment.gradient_matching:
        raise RequestFault(
            f"gradient_matching compares the gradients of whole matrices, and each of {devices} devices holds a part.",
            field="recipe.alignment.gradient_matching",
            way_out=f"Leave it out, or {_ONE_DEVICE}.",
        )
    if alignment.compile:
        raise RequestFault(
            f"compile has not been tried with weights that are spread over {devices} devices.",
            field="recipe.alignment.compile",
            way_out=f"Leave it out, or {_ONE_DEVICE}.",
        )


def _refuse_optimizer(alignment: Alignment, devices: int) -> None:
    """Those that look at whole matrices, or keep states that do not go with parts of a weight."""
    if not optimizer_spec(alignment.optimizer).several_devices:
        able = listed((f'"{spec.name}"' for spec in optimizers() if spec.several_devices), "or")
        raise RequestFault(
            f"optimizer {alignment.optimizer} cannot train weights that are spread over {devices} devices.",
            field="recipe.alignment.optimizer",
            way_out=f"Set alignment.optimizer to {able}, or {_ONE_DEVICE}.",
        )


def _refuse_masks(recipe: Recipe, devices: int) -> None:
    if not recipe.pruning.method.removes_units:
        raise RequestFault(
            f"pruning.method {recipe.pruning.method} removes single weights, and {devices} devices that hold parts of "
            "each matrix cannot keep those removed while they align.",
            field="recipe.pruning.method",
            way_out=f'Set pruning.method to "structured", or {_ONE_DEVICE}.',
        )
