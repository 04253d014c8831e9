"""Methods that train one vector a module: IA3, which multiplies rows or columns by it, and BEFT, which adds it to what
the module gives. The vectors are put back at the kept indices; between stands what changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor

from publisher.architecture.structure import Shape
from publisher.checkpoint.pruning_masks import KeptIndices, PruningMasks
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.as_lora import as_lora
from publisher.checkpoint.recovery.changes import Together
from publisher.checkpoint.recovery.merging import merged_weight
from publisher.checkpoint.recovery.method import AdapterMethod, Change, Ending, Update, one_to_one
from publisher.checkpoint.recovery.methods.matrix_method import in_the_tensors, takes_all
from publisher.checkpoint.recovery.naming import PEFT_PREFIX, Naming
from publisher.checkpoint.recovery.scatter import put_back
from publisher.errors import RequestFault


@dataclass(frozen=True)
class _Vectors:
    """Tensors named `<module><part>`, whose value `neutral` changes nothing."""

    part: str
    neutral: float

    def recovered(self, adapter: Adapter, masks: PruningMasks) -> Update:
        def shape(name: str, found: Shape) -> Shape:
            axis, kept = self.axis(name, found, masks)
            return found if kept is None else (*found[:axis], kept.full, *found[axis + 1 :])

        return one_to_one(adapter, shape, partial(self.wide, adapter, masks))

    def wide(self, adapter: Adapter, masks: PruningMasks, name: str, vector: Tensor) -> Tensor:
        """For the base model, at the adapter's strength: the distance from what changes nothing is multiplied."""
        axis, kept = self.axis(name, tuple(vector.shape), masks)
        if adapter.strength != 1:
            vector = (self.neutral + adapter.strength * (vector - self.neutral)).to(vector.dtype)
        return vector if kept is None else put_back(vector, kept, axis, fill=self.neutral)

    def axis(self, name: str, shape: Shape, masks: PruningMasks) -> tuple[int, KeptIndices | None]:
        """Along which the vector lies, (out, 1), (1, in) or (1, out), and what is left of the weight there."""
        found = masks.parameter(f"{self.module(name)}.weight")
        axis = int(len(shape) == 2 and shape[0] == 1 and prod(shape) > 1)
        if found is None:
            return axis, None
        of_weight = axis if self.neutral else 0
        if prod(shape) != found.left[of_weight]:
            raise RequestFault(
                f"The adapter does not fit the checkpoint: {name} has shape {shape}, {found.left[of_weight]} numbers "
                "would fit.",
                way_out="Recover it with the checkpoint it was trained on.",
            )
        return axis, found.along(of_weight)

    def module(self, name: str) -> str:
        if not name.endswith(self.part):
            raise RequestFault(f"{name} is not the vector of a linear layer and cannot be recovered.")
        return name.removesuffix(self.part)

    def idle(self, tensors: Iterable[tuple[str, Tensor]]) -> set[str]:
        return {
            name.removesuffix(self.part)
            for name, vector in tensors
            if name.endswith(self.part) and bool((vector == self.neutral).all())
        }

    def changes(
        self, axes: Callable[[Tensor], tuple[str, ...]], adapter: Adapter, masks: PruningMasks
    ) -> Iterator[Change]:
        """`axes`: which of a module's parameters a vector changes. Biases that the model does not have are left out."""
        for name in adapter.tensors.updates:
            vector = self.wide(adapter, masks, name, adapter.tensors.read(name))
            module = self.module(name).removeprefix(PEFT_PREFIX)
            for parameter in axes(vector):
                if parameter == "bias" and self.neutral and not _is_biased(adapter, module):
                    continue
                weight = f"{module}.{parameter}"
                yield Change(name, weight, _shape(parameter, vector), self._merged(vector, masks.mask_of(weight)))

    def _merged(self, vector: Tensor, mask: Tensor | None) -> Callable[[Tensor], Tensor]:
        return partial(_multiplied if self.neutral else _added, vector, mask)


def _is_biased(adapter: Adapter, module: str) -> bool:
    target = None if adapter.places is None else adapter.places.targets.get(module)
    return target is not None and target.biased


def _shape(parameter: str, vector: Tensor) -> tuple[int | None, ...]:
    if parameter == "bias":
        return (vector.numel(),)
    return (vector.numel(), None) if vector.shape[1] == 1 else (None, vector.numel())


def _multiplied(vector: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    exact = torch.promote_types(weight.dtype, torch.float32)
    by = vector.to(exact) if weight.ndim == 2 else vector.to(exact).flatten()
    changed = (weight.to(exact) * by).to(weight.dtype)
    return changed if mask is None else torch.where(mask, changed, weight)


def _added(vector: Tensor, mask: Tensor | None, bias: Tensor) -> Tensor:
    return merged_weight(bias, vector.flatten(), mask)


def _multiplied_parameters(vector: Tensor) -> tuple[str, ...]:
    """Rows are multiplied with their bias; columns are of the input."""
    return ("weight", "bias") if vector.shape[1] == 1 else ("weight",)


_IA3, _BEFT = _Vectors(".ia3_l", 1.0), _Vectors(".beft_bias", 0.0)

VECTORS = (
    AdapterMethod(
        peft_type="IA3",
        title="IA3",
        naming=Naming((".ia3_",)),
        refuse=takes_all,
        scale=in_the_tensors,
        recover=_IA3.recovered,
        merge=partial(_IA3.changes, _multiplied_parameters),
        truncate=partial(as_lora, together=Together.ALONE),
        idle=_IA3.idle,
        idle_as="l = 1",
        ending=Ending.EXACT,
        why="a factor for every row or column, 1 where the checkpoint has none",
        on_weights="it multiplies the weight: on the base model the base model's own",
    ),
    AdapterMethod(
        peft_type="BEFT",
        title="BEFT",
        naming=Naming((".beft_",)),
        refuse=takes_all,
        scale=in_the_tensors,
        recover=_BEFT.recovered,
        merge=partial(_BEFT.changes, lambda vector: ("bias",)),
        idle=_BEFT.idle,
        idle_as="b = 0",
        ending=Ending.EXACT,
        why="a number for every row, added to what the module gives",
    ),
)
