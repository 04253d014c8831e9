"""The base model with an update in it: W0 + scaling · (B A) ∘ M (arXiv 2502.13533, section 3.2), by whatever method.

How recovery ends for checkpoints that lost single weights, and for updates that no adapter of the base model holds.
One matrix is computed at a time, while the last one is written; what the update does not reach is copied bit by bit.
"""

from __future__ import annotations

import shutil
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, reduce
from pathlib import Path

import torch
from torch import Tensor

from publisher.architecture.structure import Shape
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.method import AdapterMethod
from publisher.checkpoint.recovery.naming import TOKENS
from publisher.checkpoint.recovery.places import AdapterPlaces
from publisher.checkpoint.recovery.whole_parameters import refuse_cut, refuse_overflow, token_indices
from publisher.errors import RequestFault
from publisher.weights.folder import FLOATS, StoredWeights
from publisher.weights.writing import PlacedFile

#: pieces of a tensor that wait to be written
_WAITING = 2
#: Files of a model's folder that hold weights, in whatever format, and so do not come along; the card is another's.
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
_LEFT_BEHIND = ("README.md", ".gitattributes")


#: bytes of the model that are done, and of all
Progress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """For whoever shows no progress."""


def merged_weight(weight: Tensor, update: Tensor, mask: Tensor | None) -> Tensor:
    """`weight` (out, in) plus `update` where `mask` keeps it, rounded once to the weight's dtype."""
    exact = torch.promote_types(torch.promote_types(weight.dtype, update.dtype), torch.float32)
    merged = (weight.to(exact) + update.to(exact)).to(weight.dtype)
    return merged if mask is None else torch.where(mask, merged, weight)


def write_model(
    base: StoredWeights, output: Path, pieces: Callable[[str], Iterable[Tensor]], progress: Progress = silent
) -> None:
    """A copy of the model `base`, in files of the same names, with its config and tokenizer. `pieces` says of each
    weight what it becomes: rows after rows, or the whole tensor as one."""
    for path in sorted(base.folder.iterdir()):
        if path.is_file() and path.suffix not in _WEIGHT_SUFFIXES and path.name not in _LEFT_BEHIND:
            shutil.copyfile(path, output / path.name)
    total, done = sum(entry.size for entry in base.entries.values()), 0
    for file, weights in base.files.items():
        with PlacedFile(output / file, [base.entries[weight] for weight in weights]) as placed:
            for weight in _written(placed, pieces):
                done += base.entries[weight].size
                progress(done, total)


def _written(file: PlacedFile, pieces: Callable[[str], Iterable[Tensor]]) -> Iterator[str]:
    """The names of what is done. While pieces are written the next are computed."""
    with ThreadPoolExecutor(1) as writer:
        waiting: deque[Future[None]] = deque()
        for entry in file.entries:
            first = 0
            for rows in pieces(entry.name):
                if len(waiting) == _WAITING:
                    waiting.popleft().result()
                waiting.append(writer.submit(file.write_rows, entry.name, first, rows))
                first += len(rows) if rows.ndim else 0
            yield entry.name
        for last in waiting:
            last.result()


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
        self._by_rows: dict[str, Callable[[Tensor], Iterator[Tensor]]] = {}
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
        write_model(self.base, output, self._pieces, progress)

    @property
    def changed(self) -> int:
        """How many of the base model's weights."""
        return len(self._changes)

    def _pieces(self, weight: str) -> Iterator[Tensor]:
        stored, changes = self.base.read(weight), self._changes.get(weight, ())
        if len(changes) == 1 and weight in self._by_rows:
            pieces = self._by_rows[weight](stored)
        else:
            pieces = iter([reduce(lambda merged, change: change(merged), changes, stored)])
        for piece in pieces:
            if changes:
                refuse_overflow(weight, piece)
            yield piece

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


def _fits(size: int | None, found: int) -> bool:
    return size is None or size == found


def _is_tied(weights: StoredWeights, places: AdapterPlaces | None) -> bool:
    """Whether the head is the embeddings: it is where the files have none of its own. What config.json says decides
    nothing, as families differ in what holds where it is silent."""
    heads = set() if places is None else places.embeddings - {places.input_embeddings}
    return not any(f"{head}.weight" in weights.entries for head in heads)
