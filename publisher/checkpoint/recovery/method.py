"""What an adapter method says of itself, once: recovery walks over these declarations (methods/)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from torch import Tensor

from publisher.architecture.structure import Shape
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.model_copy import Rows
from publisher.checkpoint.recovery.naming import Naming
from publisher.errors import RequestFault
from publisher.weights.writing import Entry

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Update:
    """The update for the base model, as a stock adapter: `entries` and `tensor`, which makes each when it is written.

    Names and numbers of tensors may be others than the adapter's, and `config` of another method: an update that its
    own method cannot hold at the base model's widths becomes a LoRA that is equal or near to it: `left_out` is the
    share of the change's norm that it lacks, and `notes` say so, a sentence each.
    """

    entries: Sequence[Entry]
    tensor: Callable[[str], Tensor]
    config: Config
    notes: tuple[str, ...] = ()
    left_out: float = 0.0


@dataclass(frozen=True)
class Change:
    """What tensor `name` (with those that belong to it) does to the base model's `weight`, which has to have `shape`,
    None of an axis that the tensor says nothing of.

    `merged`: the base model's weight → that with the update in it; `by_rows`: the same, some rows at a time, where
    that can be had. `embeds`: it changes embeddings alone, which a model whose LM head they are cannot take.
    """

    name: str
    weight: str
    shape: tuple[int | None, ...]
    merged: Callable[[Tensor], Tensor]
    embeds: bool = False
    by_rows: Callable[[Tensor], Rows] | None = None


def where_no_mask_is_needed(masks: PruningMasks) -> bool:
    """Of updates of matrices: masked, they have no low rank."""
    return masks.update_masks is None


def everywhere(masks: PruningMasks) -> bool:
    """Of what no mask touches: prompts, prefixes."""
    return True


class Ending(StrEnum):
    """What becomes of an adapter, in the words of docs/adapters.md."""

    EXACT = "exact, stays the method"
    REALISED = "realised change"
    PASSED = "passed through"
    REFUSED = "refused"


def always(config: Config) -> bool:
    return True


def never_idle(tensors: Iterable[tuple[str, Tensor]]) -> set[str]:
    """Of methods whose tensors do not tell whether they were trained. Reads them all, as it has to."""
    for _ in tensors:
        pass
    return set()


@dataclass(frozen=True)
class AdapterMethod:
    """One method of PEFT's: how its adapters, trained on a checkpoint, become ones for the base model.

    `peft_type` as in adapter_config.json, `title` in sentences, `naming` of its tensors. `covers`: of the configs of
    this type those that are this method's; `variant` says which those are, in words, and is empty for the one that
    takes what no variant covers. `refuse` raises RequestFault naming what of the config has no recovery. `scale`: the
    config with the update multiplied by a strength (a positive number); it refuses what the method cannot do.

    An update ends in one of two ways. Where `stays_adapter` says so, `recover` makes it a stock adapter: every factor
    put back at the kept indices, or the realised change as a LoRA, or as it is. Else `merge` names its changes of the
    base model's weights. Both refuse tensors that do not fit the checkpoint; None: this method cannot end so.
    `truncate`: the update as a LoRA of the rank that was asked for.

    `trained`: values of the config that only said how training starts. `idle`: modules (`Naming.adapted`) whose update
    is zero, of all tensors, each of which is read once; `idle_as` says what that looks like.

    `ending` and `why` are for the documentation: what becomes of it, and the reason. `on_weights`: why the update
    depends on the weights it was trained on, so that on the base model it is what it did to the checkpoint's; empty:
    it does not. `needs_weights`: PEFT can make it on a model with weights alone (places_of_modules). `multiplied`: it
    is an update of weights, which a strength multiplies.
    """

    peft_type: str
    title: str
    naming: Naming
    refuse: Callable[[Config], None]
    scale: Callable[[Config, float], dict[str, Any]]
    recover: Callable[[Adapter, PruningMasks], Update] | None = None
    merge: Callable[[Adapter, PruningMasks], Iterable[Change]] | None = None
    truncate: Callable[[Adapter, PruningMasks], Update] | None = None
    stays_adapter: Callable[[PruningMasks], bool] = where_no_mask_is_needed
    trained: Config = field(default_factory=dict)
    idle: Callable[[Iterable[tuple[str, Tensor]]], set[str]] = never_idle
    idle_as: str = ""
    covers: Callable[[Config], bool] = always
    variant: str = ""
    ending: Ending = Ending.EXACT
    why: str = ""
    on_weights: str = ""
    needs_weights: bool = False
    multiplied: bool = True

    @property
    def key(self) -> str:
        return f"{self.peft_type} {self.variant}".strip()

    def ends_as_adapter(self, masks: PruningMasks) -> bool:
        return self.recover is not None and self.stays_adapter(masks)

    def recovered(self, adapter: Adapter, masks: PruningMasks) -> Update:
        if adapter.rank is not None:
            return self._truncated(adapter, masks)
        if self.recover is None:
            raise RequestFault(
                f"What was trained with {self.title} is no adapter for the base model.",
                way_out="Merge it into the base model.",
            )
        return self.recover(adapter, masks)

    def _truncated(self, adapter: Adapter, masks: PruningMasks) -> Update:
        if self.truncate is None:
            raise RequestFault(
                f"What was trained with {self.title} changes no matrices, and is no LoRA of any rank.",
                field="rank",
                way_out="Recover it without --rank.",
            )
        return self.truncate(adapter, masks)

    def changes(self, adapter: Adapter, masks: PruningMasks) -> Iterator[Change]:
        """By name of the tensor."""
        if self.merge is None:
            raise RequestFault(
                f"What was trained with {self.title} cannot be merged into the base model, as a checkpoint of these "
                "masks needs it.",
                way_out="Train a LoRA (peft_type LORA).",
            )
        yield from sorted(self.merge(adapter, masks), key=lambda change: change.name)


def one_to_one(
    adapter: Adapter, shape: Callable[[str, Shape], Shape], tensor: Callable[[str, Tensor], Tensor]
) -> Update:
    """Of methods whose parts keep their names and dtypes, each recovered by itself: by `tensor`, in `shape`."""
    tensors = adapter.tensors
    shapes = {name: shape(name, tensors.shape(name)) for name in tensors.updates}
    entries = [Entry(name, tensors.dtype(name), recovered) for name, recovered in shapes.items()]
    return Update(entries, lambda name: tensor(name, tensors.read(name)), adapter.config)


def refuse_strength(strength: float) -> None:
    """RequestFault for what is no positive number."""
    if not (math.isfinite(strength) and strength > 0):
        raise RequestFault(
            f"An update cannot be multiplied by {strength}.",
            field="strength",
            way_out="Give a positive number, such as 1.3.",
        )
