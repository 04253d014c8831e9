"""Methods that are products of factors with a row for every row and a column for every column, as LoRA is: their
factors are put back at the kept indices, zeros between, and what was recovered stays the method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from torch import Tensor

from publisher.architecture.structure import Shape
from publisher.checkpoint.pruning_masks import KeptIndices, PruningMasks
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.as_changes import as_changes
from publisher.checkpoint.recovery.as_lora import as_lora
from publisher.checkpoint.recovery.changes import Together
from publisher.checkpoint.recovery.method import AdapterMethod, Config, Ending, Update, one_to_one
from publisher.checkpoint.recovery.methods.matrix_method import in_the_tensors, takes_all
from publisher.checkpoint.recovery.naming import Naming
from publisher.checkpoint.recovery.scatter import put_back
from publisher.errors import RequestFault

#: part of a name → (the factor's axis, the weight's axis that it is of); None: of the rank alone
_Axes = Mapping[str, tuple[int, int] | None]
_ADALORA: _Axes = {".lora_A": (1, 1), ".lora_B": (0, 0), ".lora_E": None}
_LOHA: _Axes = {
    ".hada_w1_a": (0, 0), ".hada_w1_b": (1, 1), ".hada_w2_a": (0, 0), ".hada_w2_b": (1, 1),
}  # fmt: skip
#: (splits, skills, in, rank) and (splits, skills, rank, out)
_POLY: _Axes = {".poly_lora_A": (2, 1), ".poly_lora_B": (3, 0), ".poly_router.module_logits": None}


def _of_factors(peft_type: str, title: str, mark: str, *, axes: _Axes, scaled: str, idle_as: str) -> AdapterMethod:
    """`scaled`: the part that a strength multiplies, which is also what is zero before training."""
    return AdapterMethod(
        peft_type=peft_type,
        title=title,
        naming=Naming((mark,)),
        refuse=takes_all,
        scale=in_the_tensors,
        recover=partial(_recovered, axes, scaled),
        merge=partial(as_changes, together=Together.ALONE),
        truncate=partial(as_lora, together=Together.ALONE),
        idle=partial(_idle, scaled),
        idle_as=idle_as,
        ending=Ending.EXACT,
        why="every factor has a row or a column for each of the weight's",
    )


def _recovered(axes: _Axes, scaled: str, adapter: Adapter, masks: PruningMasks) -> Update:
    def shape(name: str, found: Shape) -> Shape:
        place = _place(axes, name, found, masks)
        return found if place is None else (*found[: place[0]], place[1].full, *found[place[0] + 1 :])

    def tensor(name: str, found: Tensor) -> Tensor:
        place = _place(axes, name, tuple(found.shape), masks)
        wide = found if place is None else put_back(found, place[1], place[0])
        return (wide * adapter.strength).to(wide.dtype) if name.endswith(scaled) and adapter.strength != 1 else wide

    return one_to_one(adapter, shape, tensor)


def _place(axes: _Axes, name: str, shape: Shape, masks: PruningMasks) -> tuple[int, KeptIndices] | None:
    """The axis of the factor that lost entries, and those that are left."""
    part = next((part for part in axes if name.endswith(part)), None)
    if part is None:
        raise RequestFault(f"{name} is not part of the factors of a linear layer and cannot be recovered.")
    axis, found = axes[part], masks.parameter(f"{name.removesuffix(part)}.weight")
    if axis is None or found is None:
        return None
    own, of_weight = axis
    if len(shape) <= own or shape[own] != found.left[of_weight]:
        raise RequestFault(
            f"The adapter does not fit the checkpoint: {name} has shape {shape}, and {found.left[of_weight]} in axis "
            f"{own} would fit.",
            way_out="Recover it with the checkpoint it was trained on.",
        )
    kept = found.along(of_weight)
    return None if kept is None else (own, kept)


def _idle(scaled: str, tensors: Iterable[tuple[str, Tensor]]) -> set[str]:
    return {name.removesuffix(scaled) for name, tensor in tensors if name.endswith(scaled) and not tensor.any()}


def _refuse_splits(config: Config) -> None:
    if config.get("n_splits", 1) != 1:
        raise RequestFault(
            f"The adapter was trained with n_splits={config['n_splits']!r}: splits are of neighbouring rows "
            "and columns.",
            way_out="Train Poly with n_splits=1.",
        )


FACTORS = (
    _of_factors("ADALORA", "AdaLoRA", ".lora_", axes=_ADALORA, scaled=".lora_E", idle_as="E = 0"),
    _of_factors("LOHA", "LoHa", ".hada_", axes=_LOHA, scaled=".hada_w2_a", idle_as="w2 = 0"),
    replace(
        _of_factors("POLY", "Poly", ".poly_", axes=_POLY, scaled=".poly_lora_B", idle_as="B = 0"),
        refuse=_refuse_splits, merge=None, truncate=None,
        why="every skill's A and B have a row or a column for each of the weight's; the router has none",
    ),
)  # fmt: skip
