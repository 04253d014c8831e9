"""The base model with an update in it: W0 + scaling · (B A) ∘ M (arXiv 2502.13533, section 3.2), by whatever method.

How recovery ends for checkpoints that lost single weights, and for updates that no adapter of the base model holds.
What the update does not reach is copied bit by bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path

import torch
from torch import Tensor

from publisher.architecture.structure import Shape
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.method import AdapterMethod
from publisher.checkpoint.recovery.model_copy import Progress, Rows, rows_of, silent, write_model
from publisher.checkpoint.recovery.naming import TOKENS
from publisher.checkpoint.recovery.places import AdapterPlaces
from publisher.checkpoint.recovery.whole_parameters import refuse_cut, refuse_overflow, token_indices
from publisher.errors import RequestFault
from publisher.weights.folder import FLOATS, StoredWeights


def merged_weight(weight: Tensor, update: Tensor, mask: Tensor | None) -> Tensor:
    """`weight` (out, in) plus `update` where `mask` keeps it, rounded once to the weight's dtype."""
    exact = torch.promote_types(torch.promote_types(weight.dtype, update.dtype), torch.float32)
    merged = (weight.to(exact) + update.to(exact)).to(weight.dtype)
    return merged if mask is None else torch.where(mask, merged, weight)


class Merge:
    """An adapter, the masks of the checkpoint it was trained on, and the base model: all checked when it is made.

    Raises RequestFault naming the tensor that does not fit or cannot be merged exactly.
    """

    def __init__(self, method: AdapterMethod, adapter: Adapter, masks: PruningMasks, base: Path) -> None:
        self.base = StoredWeights(base)
        self._method = method
        self._adapter = adapter
        self._masks = masks
        self._tied = _is_tied(self.base, adapter.places)
        self._refuse_other_base()
        #: base weight → what is done to it, one after the other; what replaces all of it first
        self._changes: dict[str, list[Callable[[Tensor], Tensor]]] = defaultdict(list)
        self._by_rows: dict[str, Callable[[Tensor], Rows]] = {}
        for name in adapter.tensors.wholes:
            self._changes[self._replaceable(name)].append(partial(self._with_whole, name))
        for change in method.changes(adapter, masks):
            if change.embeds:
                self._refuse_tied(change.name)
            self._refuse_unfitting(change.name, change.weight, change.shape)
            self._changes[change.weight].append(change.merged)
            if change.by_rows is not None:
                self._by_rows[change.weight] = change.by_rows
        for name in adapter.tensors.wholes:
            self._replaced(name)
            if self._is_copy_of_embeddings(name):
                self._refuse_tied(name)

    def write(self, output: Path, progress: Progress = silent) -> None:
        """The merged model, in files of the base model's names, with its config and tokenizer."""
        write_model(self.base, output, self._become, progress)

    @property
    def changed(self) -> int:
        """How many of the base model's weights."""
        return len(self._changes)

    def _become(self, weight: str, stored: Tensor) -> Rows:
        changes = self._changes.get(weight, ())
        if not changes:
            return rows_of(stored)
        if len(changes) == 1 and weight in self._by_rows:
            return partial(_finite, weight, self._by_rows[weight](stored))
        changed = reduce(lambda merged, change: change(merged), changes, stored)
        refuse_overflow(weight, changed)
        return rows_of(changed)

    def _with_whole(self, name: str, weight: Tensor) -> Tensor:
        recovered = self._replaced(name).to(weight.dtype)
        if not name.endswith(TOKENS):
            return recovered
        return weight.index_copy(0, token_indices(name, self._adapter.config, self._method.naming), recovered)

    def _replaced(self, name: str) -> Tensor:
        """What a whole tensor of the adapter is for the base model."""
        if self._adapter.whole is None:
            raise RequestFault(f"{name} is a whole parameter, and what it was before training is not known.")
        return self._adapter.whole.recovered(name, self._adapter.tensors.read(name))

    def _replaceable(self, name: str) -> str:
        """The base weight that a whole tensor of the adapter replaces, of all rows or of some."""
        weight = self._method.naming.parameter_of(name)
        if self._masks.mask_of(weight) is not None:
            raise RequestFault(
                f"{name} is a whole copy of a pruned weight (modules_to_save), not an update: what was pruned would be "
                "lost from the base model.",
                way_out=f"Train this layer through {self._method.title} alone.",
            )
        refuse_cut(name, self._masks, self._method.title)
        shape: Shape = self._adapter.tensors.shape(name)
        entry = self.base.entries.get(weight)
        if name.endswith(TOKENS) and entry is not None:
            shape = (*entry.shape[:1], *shape[1:])
        self._refuse_unfitting(name, weight, shape)
        return weight

    def _refuse_unfitting(self, name: str, weight: str, shape: tuple[int | None, ...]) -> None:
        """What the adapter's tensor changes has to be there, in this shape."""
        entry = self.base.entries.get(weight)
        if entry is None:
            raise RequestFault(
                f"the adapter has {name}, and the base model in {self.base.folder} no {weight} to merge it into."
            )
        fits = len(shape) == len(entry.shape) and all(map(_fits, shape, entry.shape))
        if not fits or entry.dtype not in FLOATS:
            raise RequestFault(
                f"{name} is for a weight of shape {shape}; {weight} of the base model is {entry.dtype} {entry.shape}.",
                way_out="Name the full-precision base model that the checkpoint was made from; if training resized its "
                "embeddings, resize the base model's, save it, and name that.",
            )

    def _refuse_tied(self, name: str) -> None:
        if self._tied:
            raise RequestFault(
                f"{name} is an update of embeddings that the base model also uses as its LM head, where it was not "
                "trained: merging it would change both.",
                way_out="Train without embed_tokens in target_modules and modules_to_save.",
            )

    def _is_copy_of_embeddings(self, name: str) -> bool:
        """Whether PEFT trained it beside the head (modules_to_save); tokens, and what is one with the head, are not."""
        copies = self._adapter.config.get("modules_to_save") or ()
        places, module = self._adapter.places, self._method.naming.module_of(name)
        own = places is not None and module == places.input_embeddings
        return own and not name.endswith(TOKENS) and any(module.endswith(copy) for copy in copies)

    def _refuse_other_base(self) -> None:
        masks = self._masks.update_masks
        for weight in [] if masks is None else masks.weights:
            entry = self.base.entries.get(weight)
            shape = masks and masks.shape(weight)
            if entry is None or entry.shape != shape:
                found = "no such weight" if entry is None else f"one of shape {entry.shape}"
                raise RequestFault(
                    f"{self.base.folder} is not the base model: the checkpoint has a mask for {weight} of shape "
                    f"{shape}, and there is {found}."
                )


def _finite(weight: str, rows: Rows, block: slice) -> Tensor:
    found = rows(block)
    refuse_overflow(weight, found)
    return found


def _fits(size: int | None, found: int) -> bool:
    return size is None or size == found


def _is_tied(weights: StoredWeights, places: AdapterPlaces | None) -> bool:
    """Whether the head is the embeddings: it is where the files have none of its own. What config.json says decides
    nothing, as families differ in what holds where it is silent."""
    heads = set() if places is None else places.embeddings - {places.input_embeddings}
    return not any(f"{head}.weight" in weights.entries for head in heads)
